//! Network namespaces, each with a TUN interface whose packets the suite carries itself.
//!
//! A namespace is held by an open file and has no name that could outlive the test: it is gone with its last process
//! and this file, however the test ends.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::OFlags;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The interface's name in every namespace.
const INTERFACE: &str = "peers";
/// From <linux/if_tun.h>: which interface an open TUN device stands for.
const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
/// IFF_TUN, packets of IP, and IFF_NO_PI, without a head of their own.
const TUN_WITHOUT_HEAD: u16 = 0x1001;

/// Runs a program to its end; what it prints, or what it complains of.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let ran = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|why| format!("{}: {why}", line()))?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(format!("{}: {}", line(), String::from_utf8_lossy(&ran.stderr).trim())),
    }
}

/// A namespace.
pub struct Network {
    at: File,
}

/// A thread that is in a namespace goes back where it was.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        enter(&self.0).expect("the way back");
    }
}

fn enter(at: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(at.as_fd(), Some(LinkNameSpaceType::Network))?)
}

impl Network {
    /// A new one, whose loopback interface is up.
    pub fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("chaos-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name])?;
        let at = File::open(format!("/run/netns/{name}"));
        run("ip", &["netns", "delete", &name])?;
        let network = Self { at: at.map_err(|why| format!("a network namespace: {why}"))? };
        network.inside(|| run("ip", &["link", "set", "lo", "up"]))?;
        Ok(network)
    }

    /// Does something there, on this thread. What is spawned or opened meanwhile stays there.
    pub fn inside<T>(&self, act: impl FnOnce() -> T) -> T {
        let home = File::open("/proc/thread-self/ns/net").expect("this thread has a network");
        let _back = Back(home);
        enter(&self.at).expect("the namespace can be entered");
        act()
    }

    /// This thread stays there for good.
    pub fn move_in(&self) {
        enter(&self.at).expect("the namespace can be entered");
    }

    /// Gives it an interface with that address; what is written to the file arrives there, and what is
    /// sent from there can be read from it.
    pub fn plug(&self, address: Ipv4Addr) -> Result<File, String> {
        self.inside(|| {
            let tun = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlags::NONBLOCK.bits() as i32)
                .open("/dev/net/tun")
                .and_then(|tun| attach(&tun).map(|()| tun))
                .map_err(|why| format!("/dev/net/tun: {why}"))?;
            run("ip", &["address", "add", &format!("{address}/16"), "dev", INTERFACE])?;
            run("ip", &["link", "set", INTERFACE, "up"])?;
            Ok(tun)
        })
    }

    /// The interface has another address from now on.
    pub fn readdress(&self, old: Ipv4Addr, new: Ipv4Addr) -> Result<(), String> {
        self.inside(|| {
            // The other way round, the new one would go with the old one, as a second one of its net.
            run("ip", &["address", "delete", &format!("{old}/16"), "dev", INTERFACE])?;
            run("ip", &["address", "add", &format!("{new}/16"), "dev", INTERFACE]).map(drop)
        })
    }
}

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes the interface in this thread's namespace.
fn attach(tun: &File) -> io::Result<()> {
    let mut name = [0; 16];
    name[..INTERFACE.len()].copy_from_slice(INTERFACE.as_bytes());
    let request = InterfaceRequest { name, flags: TUN_WITHOUT_HEAD, rest: [0; 22] };
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq` of 40 bytes, which is what it gets.
    unsafe { ioctl(tun, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    Ok(())
}
