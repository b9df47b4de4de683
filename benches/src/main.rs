//! Measured questions.
fn main() {}
