//! C programs of ours, compiled against the header.

use crate::{
    site::{PATH, Site},
    support::{Build, compile, installed, run},
};

/// Compiles and runs a program that works in a folder.
fn in_a_folder(name: &str, build: Build) {
    let (lib, out) = (installed(), tempfile::tempdir().unwrap());
    let program = compile(name, build, lib.path(), out.path());
    let work = tempfile::tempdir().unwrap();
    run(&program, lib.path(), &[work.path().to_str().unwrap()]);
}

#[test]
fn every_function_answers_right_and_wrong_arguments() {
    in_a_folder("local", Build::Plain);
}

#[test]
fn every_function_is_clean_under_address_sanitizer() {
    in_a_folder("local", Build::Sanitized);
}

#[test]
fn eight_threads_on_eight_handles_and_one_shared() {
    in_a_folder("threads", Build::Plain);
    in_a_folder("threads", Build::Sanitized);
}

#[test]
fn calls_from_callbacks_at_exit_after_forks_and_in_races_do_no_harm() {
    in_a_folder("misuse", Build::Plain);
    in_a_folder("misuse", Build::Sanitized);
}

/// Runs the program for remote disks against a site.
fn remote(build: Build, transport: &str, spec: &str, thumbprint: fn(&Site) -> String) {
    let (site, lib, out) = (Site::new(), installed(), tempfile::tempdir().unwrap());
    let program = compile("remote", build, lib.path(), out.path());
    let spec = if spec.is_empty() { format!("moref={}", site.moref()) } else { spec.to_owned() };
    let (address, thumbprint) = (site.address(), thumbprint(&site));
    let folder = out.path().to_str().unwrap();
    let arguments = [&address, &thumbprint, site.user(), site.password(), &spec, PATH, transport, folder];
    run(&program, lib.path(), &arguments);
    site.end();
}

#[test]
fn disks_of_a_server_are_read_written_and_copied_over_tls() {
    remote(Build::Plain, "nbdssl", "", Site::thumbprint_sha1);
}

#[test]
fn remote_disks_are_clean_under_address_sanitizer() {
    remote(Build::Sanitized, "nbdssl", "", Site::thumbprint_sha256);
}

#[test]
fn machines_are_found_by_file_and_read_in_clear_text_where_that_is_named() {
    remote(Build::Plain, "nbd", "web/web.vmx?dcPath=dc1&dsName=ds1", Site::thumbprint_sha1);
}
