//! Builds the few lines that can only be said in C, and gives the library the name that programs are linked to.

fn main() {
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libvixDiskLib.so.8");
    cc::Build::new().file("src/shim.c").flag("-fvisibility=hidden").compile("vixdisklib_capi_shim");
}
