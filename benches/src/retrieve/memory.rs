//! The most memory that a walk through an inventory takes, measured by the kernel in a process of its own.
//!
//! The server makes each page when it is asked for, so that one page at a time is in memory on both sides.

use std::error::Error;
use std::process::Command;

use super::inventory::Inventory;
use super::server::Server;
use super::{PER_PAGE, runtime, walk};
use crate::process::high_water;

/// The argument that makes this program the measured process.
const CHILD: &str = "--child";

/// The machines to walk through, when this is the measured process.
pub(super) fn asked() -> Option<usize> {
    let mut arguments = std::env::args().skip(2);
    arguments.next().filter(|first| first == CHILD)?;
    arguments.next()?.parse().ok()
}

/// In the measured process.
pub(super) fn measure(machines: usize) -> Result<(), Box<dyn Error>> {
    let inventory = Inventory { machines, per_page: PER_PAGE };
    runtime()?.block_on(async {
        let vim = Server::connect(move |at| inventory.page(at)).await?;
        assert_eq!(walk(&vim).await?, machines);
        vim.logout().await
    })?;
    println!("{}", high_water().ok_or("this system has no /proc/self/status")?);
    Ok(())
}

/// Runs the measured process; its high-water mark in bytes.
pub(super) fn of_walk(machines: usize) -> Result<u64, Box<dyn Error>> {
    let output =
        Command::new(std::env::current_exe()?).args(["vim-retrieve", CHILD, &machines.to_string()]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mark = printed.lines().last().and_then(|line| line.parse().ok());
    Ok(mark.ok_or_else(|| format!("the measured process failed: {}", String::from_utf8_lossy(&output.stderr)))?)
}
