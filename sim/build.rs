//! The scenarios are part of the program; a new file is a reason to build it again.

fn main() {
    println!("cargo::rerun-if-changed=../scenarios");
}
