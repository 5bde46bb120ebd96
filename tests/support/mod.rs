//! Words that stories are told in.
#![allow(dead_code, reason = "a vocabulary: not every word is in use at every time")]

pub mod certificates;
pub mod cli;
pub mod lab;
pub mod process;
pub mod sample;
pub mod shape;
pub mod story;
pub mod tools;
pub mod twin;
pub mod uml;
