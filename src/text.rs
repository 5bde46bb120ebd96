//! Values that are one word in files: a lab's, a scenario's, a line of results.

/// Makes a type with `Display` and `FromStr` a string in files: `#[serde(try_from = "String", into = "String")]`.
macro_rules! as_string {
    ($($type:ty),+) => { $(
        impl TryFrom<String> for $type {
            type Error = <$type as ::std::str::FromStr>::Err;
            fn try_from(text: String) -> Result<$type, Self::Error> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )+ };
}

pub(crate) use as_string;
