//! Any bytes are an error or a bitmap that is written back as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use raidlab::raid::bitmap_super::BitmapImage;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut image) = BitmapImage::decode(bytes) else { return };
    let encoded = image.encode();
    let common = encoded.len().min(bytes.len());
    assert_eq!(encoded[..common], bytes[..common]);
    assert_eq!(BitmapImage::decode(&encoded).as_ref(), Ok(&image));
    let set = image.iter_set().count() as u64;
    assert!(set <= image.len());
    image.set_all(true);
    assert_eq!(image.iter_set().count() as u64, image.len());
});
