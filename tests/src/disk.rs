//! Small disks, in memory, to be filled up. Needs root and `mount`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A disk that is mounted until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `mib` mebibytes at a folder that exists; `None` where nothing may be mounted.
    ///
    /// # Errors
    /// There is no `mount`.
    pub fn mount(place: &Path, mib: u64) -> Result<Option<SmallDisk>> {
        let disk = SmallDisk(place.to_owned());
        let size = format!("size={mib}m");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", disk.text()?]);
        Ok(mounted.is_ok().then_some(disk))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all room but so many mebibytes.
    ///
    /// # Errors
    /// There is less.
    pub fn fill(&self, left_mib: u64) -> Result<()> {
        self.clear()?;
        let filler = self.filler();
        let bytes = self.free()?.saturating_sub(left_mib << 20);
        run("fallocate", &["-l", &bytes.to_string(), filler.to_str().context("no text")?]).map(drop)
    }

    /// Takes away what fills it.
    ///
    /// # Errors
    /// The system's.
    pub fn clear(&self) -> Result<()> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn text(&self) -> Result<&str> {
        self.0.to_str().context("no text")
    }

    fn free(&self) -> Result<u64> {
        let said = run("df", &["--output=avail", "-B1", self.text()?])?;
        Ok(said.lines().last().context("df says nothing")?.trim().parse()?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // One that was never mounted says so, which is no matter.
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(std::process::Stdio::null()).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
