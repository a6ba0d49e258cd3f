//! The disk under the data directory: its file system, how it is mounted, the block devices below.
//!
//! A directory that is not there yet is judged by the nearest one above it that is; nothing is created then. In one
//! that is there a block is written to a file of its own, and removed, to see whether direct I/O works.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::finding::{Finding, Line};
use super::reading::{Reading, Root, chosen};
use crate::base::units::{GIB, human_bytes};
use crate::io::uring::capabilities::{DirectAlignment, probe_directory};

/// Direct I/O in larger units wastes more of the last block of each commit.
const BLOCK_BYTES_OK: u64 = 4096;
/// Below this a benchmark fills the disk while somebody looks away.
const FREE_BYTES_OK: u64 = 4 * GIB as u64;
/// File systems grow slow when nearly full.
const FREE_PERCENT_OK: u64 = 10;
/// More layers than anybody stacks (a partition on LVM on dm-crypt on RAID).
const LAYER_COUNT_MAX: usize = 8;

/// What was found out about the disk.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where it lies.
    pub mount: Reading<Mount>,
    /// Whether an ext4 keeps a journal; absent for other file systems.
    pub journal: Reading<bool>,
    /// Bytes free for this user and in all.
    pub space: Reading<(u64, u64)>,
    /// The units of direct I/O, if there is any; absent: not probed.
    pub direct: Reading<Option<DirectAlignment>>,
    /// Block devices that hold it; none for file systems without.
    pub devices: Reading<Vec<Device>>,
    /// It is a virtual machine, whose disks often call themselves rotating.
    pub virtual_machine: bool,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// `ext4`, `xfs`, ….
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options of mount and file system.
    pub options: Vec<String>,
}

impl Mount {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }
}

/// A whole disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As in `/sys/block`.
    pub name: String,
    /// The scheduler in force.
    pub scheduler: Reading<String>,
    /// `write back` or `write through`.
    pub write_cache: Reading<String>,
    /// A write can be made durable by itself (force unit access).
    pub force_unit_access: Reading<u64>,
    /// The least that can be addressed.
    pub logical_block_bytes: Reading<u64>,
    /// The least that is written without reading.
    pub physical_block_bytes: Reading<u64>,
    /// Says that it rotates.
    pub rotational: Reading<u64>,
    /// Greatest discard; 0: none.
    pub discard_bytes: Reading<u64>,
}

/// Reads the facts.
pub fn read(root: &Root, data_dir: &Path, virtual_machine: bool) -> Facts {
    let exists = data_dir.is_dir();
    let nearest = data_dir.ancestors().find(|path| path.is_dir() && !path.as_os_str().is_empty());
    let nearest = nearest.unwrap_or(Path::new("."));
    let place = Reading::from(nearest.canonicalize().and_then(|path| {
        let device = path.metadata()?.dev();
        Ok((path, device))
    }));
    let mount = match (&place, root.text("proc/self/mountinfo")) {
        (Reading::Known((path, device)), Reading::Known(text)) => match find_mount(&text, path, *device) {
            Some(mount) => Reading::Known(mount),
            None => Reading::Unread("no mount point of it is listed".into()),
        },
        (Reading::Unread(why), _) => Reading::Unread(why.clone()),
        (_, text) => text.parse(|_| None),
    };
    Facts {
        data_dir: data_dir.to_path_buf(),
        space: Reading::from(statvfs(nearest).map_err(std::io::Error::from)).map(|space| {
            let unit = space.fragment_size();
            (space.blocks_available() * unit, space.blocks() * unit)
        }),
        direct: match exists {
            true => Reading::from(probe_directory(nearest)).map(|found| found.direct),
            false => Reading::Absent,
        },
        journal: mount.known().map_or(Reading::Absent, |mount| keeps_journal(root, mount)),
        devices: devices(root, place.known().map(|(_, device)| *device), mount.known()),
        mount,
        virtual_machine,
    }
}

/// The mount with the longest path above `path`; where several have it, the last, which covers the others. One with
/// the right device number wins over others.
fn find_mount(text: &str, path: &Path, device: u64) -> Option<Mount> {
    let number = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let lines = text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let point = PathBuf::from(unescape(left.get(4)?));
        path.starts_with(&point).then_some(())?;
        let options = [*left.get(5)?, right.get(2).copied().unwrap_or_default()];
        let mut options: Vec<String> = options.iter().flat_map(|o| o.split(',')).map(str::to_string).collect();
        options.sort();
        options.dedup();
        let mount = Mount { kind: right.first()?.to_string(), source: unescape(right.get(1)?), options, point };
        Some((left.get(2) == Some(&number.as_str()), mount.point.as_os_str().len(), mount))
    });
    lines.max_by_key(|(same_device, length, _)| (*same_device, *length)).map(|(_, _, mount)| mount)
}

/// The kernel lists every mounted ext4, and every journal under the name of its device.
fn keeps_journal(root: &Root, mount: &Mount) -> Reading<bool> {
    let name = mount.source.strip_prefix("/dev/").filter(|_| mount.kind == "ext4");
    let name = name.filter(|name| root.path(format!("proc/fs/ext4/{name}")).exists());
    let Some(name) = name else { return Reading::Absent };
    let journals = std::fs::read_dir(root.path("proc/fs/jbd2")).into_iter().flatten().flatten();
    let prefix = format!("{name}-");
    Reading::Known(journals.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)))
}

/// Spaces and the like are written as octal escapes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn devices(root: &Root, number: Option<u64>, mount: Option<&Mount>) -> Reading<Vec<Device>> {
    let by_number = number
        .map(|number| format!("sys/dev/block/{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number)));
    // Some file systems (btrfs) have numbers of their own; the source's name helps.
    let source = mount.and_then(|mount| mount.source.strip_prefix("/dev/"));
    let source = source.map(|name| format!("sys/class/block/{}", name.trim_start_matches("mapper/")));
    let path = by_number.into_iter().chain(source).map(|path| root.path(path)).find(|path| path.exists());
    let Some(path) = path else { return Reading::Absent };
    Reading::from(path.canonicalize()).map(|path| {
        let mut disks = Vec::new();
        whole_disks(&path, LAYER_COUNT_MAX, &mut disks);
        disks.sort();
        disks.dedup();
        disks.iter().map(|dir| device(dir)).collect()
    })
}

/// From a partition or mapped device down to the disks that carry it.
fn whole_disks(dir: &Path, layers: usize, found: &mut Vec<PathBuf>) {
    if dir.join("partition").exists() {
        if let Some(parent) = dir.parent() {
            found.push(parent.to_path_buf());
        }
        return;
    }
    let below = std::fs::read_dir(dir.join("slaves")).into_iter().flatten().flatten();
    let below: Vec<PathBuf> = below.filter_map(|entry| entry.path().canonicalize().ok()).collect();
    if below.is_empty() || layers == 0 {
        found.push(dir.to_path_buf());
    } else {
        below.iter().for_each(|dir| whole_disks(dir, layers - 1, found));
    }
}

fn device(dir: &Path) -> Device {
    // `dir` is canonical, so it stands for itself below any root.
    let queue = Root::host();
    let path = |name: &str| dir.join("queue").join(name);
    Device {
        name: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        scheduler: queue.text(path("scheduler")).parse(|text| chosen(text).or_else(|| Some(text.clone()))),
        write_cache: queue.text(path("write_cache")),
        force_unit_access: queue.number(path("fua")),
        logical_block_bytes: queue.number(path("logical_block_size")),
        physical_block_bytes: queue.number(path("physical_block_size")),
        rotational: queue.number(path("rotational")),
        discard_bytes: queue.number(path("discard_max_bytes")),
    }
}

/// Judges them.
pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![file_system(facts), mount_options(facts), discard(facts), direct(facts), space(facts)];
    match &facts.devices {
        Reading::Known(devices) => {
            for device in devices {
                found.extend([
                    scheduler(device, facts.virtual_machine),
                    write_cache(device),
                    blocks(device),
                    rotation(device, facts.virtual_machine),
                ]);
            }
        }
        other => {
            let line = Line::new("device", "scheduler, write cache and blocks of the disk below");
            found.push(line.judge(other, "no block device below", "a local disk", |line, _| line.ok("", "")));
        }
    }
    found
}

fn file_system(facts: &Facts) -> Finding {
    let line = Line::new(
        "file system",
        "segments are written ahead and overwritten in place, which ext4 and xfs do without allocating or journalling; \
         a file system that copies on write allocates for each commit",
    );
    line.judge(&facts.mount, "not told", "ext4 or xfs", |line, mount| {
        let current = format!("{} on {} at {}", mount.kind, mount.source, mount.point.display());
        let elsewhere = "give a directory on ext4 or xfs with --data-dir";
        match mount.kind.as_str() {
            "ext4" if facts.journal.known() == Some(&false) => line
                .note(
                    format!("{current}, without a journal: a synced write may write the inode as well"),
                    "with a journal",
                )
                .by_hand("unmount it, and: tune2fs -O has_journal"),
            "ext4" | "xfs" => line.ok(current, "ext4 or xfs"),
            "ext2" | "ext3" => line.note(current, "ext4 or xfs").by_hand(elsewhere),
            "btrfs" | "zfs" | "bcachefs" | "f2fs" => {
                line.warn(format!("{current}, copies on write"), "ext4 or xfs").by_hand(elsewhere)
            }
            "tmpfs" | "ramfs" => {
                line.warn(format!("{current}, in memory: nothing survives a reboot"), "ext4 or xfs").by_hand(elsewhere)
            }
            "overlay" => line
                .warn(format!("{current}, a container's layers"), "ext4 or xfs, as a volume")
                .by_hand("mount a volume and give it with --data-dir"),
            kind if kind.starts_with("nfs") || kind.starts_with("fuse") || kind == "cifs" || kind == "9p" => {
                line.warn(format!("{current}, not a local disk"), "ext4 or xfs").by_hand(elsewhere)
            }
            _ => line.note(current, "ext4 or xfs").by_hand(elsewhere),
        }
    })
}

fn mount_options(facts: &Facts) -> Finding {
    let line = Line::new(
        "mount options",
        "without barriers a synced write may still be in the disk's cache when it is acknowledged, and power loss takes \
         it; data=journal writes everything twice, sync makes every change of a name wait",
    );
    let recommended = "barriers, data=ordered";
    let through = facts.devices.known().is_some_and(|devices| {
        !devices.is_empty() && devices.iter().all(|device| device.write_cache == Reading::Known("write through".into()))
    });
    line.judge(&facts.mount, "not told", recommended, |line, mount| {
        let point = mount.point.display();
        let remount =
            |option: &str| format!("mount -o remount,{option} {} # and in /etc/fstab", quoted(&point.to_string()));
        let shown = |words: &[&str]| words.iter().filter(|word| mount.has(word)).copied().collect::<Vec<_>>().join(",");
        if mount.has("ro") {
            line.bad("ro", "rw").shell([remount("rw")])
        } else if mount.has("nobarrier") || mount.has("barrier=0") {
            let current = shown(&["nobarrier", "barrier=0"]);
            match through {
                true => line.ok(format!("{current}, and the disk writes through"), recommended),
                false => line.bad(current, recommended).shell([remount("barrier")]),
            }
        } else if mount.has("data=journal") {
            line.warn("data=journal", recommended).by_hand("mount it with data=ordered (not by remount)")
        } else if mount.has("sync") || mount.has("dirsync") || mount.has("wsync") {
            line.warn(shown(&["sync", "dirsync", "wsync"]), recommended).shell([remount("async")])
        } else {
            let few = mount.options.iter().filter(|option| !option.contains("id=")).cloned().collect::<Vec<_>>();
            line.ok(few.join(","), recommended)
        }
    })
}

fn discard(facts: &Facts) -> Finding {
    let line = Line::new(
        "discard",
        "with the mount option every removed segment is discarded while the file system's journal commits, and \
         commits of other partitions wait for it; a weekly fstrim does the same at a time of your choice",
    );
    line.judge(&facts.mount, "not told", "by fstrim", |line, mount| {
        let supported = facts.devices.known().is_none_or(|devices| {
            devices.iter().any(|device| device.discard_bytes.known().is_none_or(|bytes| *bytes > 0))
        });
        let point = quoted(&mount.point.display().to_string());
        match mount.has("discard") {
            true if supported => line.note("at once, by mount option", "by fstrim").shell([
                format!("mount -o remount,nodiscard {point} # and in /etc/fstab"),
                "systemctl enable --now fstrim.timer".to_string(),
            ]),
            _ => line.ok("not at once", "by fstrim"),
        }
    })
}

fn direct(facts: &Facts) -> Finding {
    let line = Line::new(
        "direct I/O",
        "records are written past the page cache in whole blocks; where that does not work every write is copied and \
         flushed",
    );
    let recommended = format!("in units of at most {BLOCK_BYTES_OK} bytes");
    let not_there = format!("not probed: {} is not there yet", facts.data_dir.display());
    line.judge(&facts.direct, &not_there, &recommended, |line, direct| match direct {
        None => line.warn("not on this file system", &recommended).by_hand("give another directory with --data-dir"),
        Some(unit) if u64::from(unit.offset_bytes) <= BLOCK_BYTES_OK => {
            line.ok(format!("in units of {} bytes", unit.offset_bytes), &recommended)
        }
        Some(unit) => line.note(format!("in units of {} bytes", unit.offset_bytes), &recommended),
    })
}

fn space(facts: &Facts) -> Finding {
    let line = Line::new("free space", "a full disk refuses appends; a nearly full file system searches long for room");
    let recommended = format!("{} and {FREE_PERCENT_OK} %", human_bytes(FREE_BYTES_OK));
    line.judge(&facts.space, "not told", &recommended, |line, (free, total)| {
        let percent = free * 100 / (*total).max(1);
        let current = format!("{} of {} ({percent} %)", human_bytes(*free), human_bytes(*total));
        match *free >= FREE_BYTES_OK && percent >= FREE_PERCENT_OK {
            true => line.ok(current, &recommended),
            false => line.warn(current, &recommended).by_hand("free some space, or shorten retention"),
        }
    })
}

fn scheduler(device: &Device, virtual_machine: bool) -> Finding {
    let name = &device.name;
    let line = Line::new(
        format!("{name} scheduler"),
        "the broker has one ordered write in flight per log and nothing for a scheduler to sort; on a disk without \
         heads it costs CPU and holds requests back",
    );
    let rotates = device.rotational == Reading::Known(1) && !virtual_machine;
    let best = if rotates { "mq-deadline" } else { "none" };
    line.judge(&device.scheduler, "none", best, |line, scheduler| {
        let mend = [format!("echo {best} > /sys/block/{name}/queue/scheduler")];
        match scheduler.as_str() {
            same if same == best => line.ok(same, best),
            "bfq" | "cfq" => line.warn(scheduler.as_str(), best).shell(mend),
            other => line.note(other, best).shell(mend),
        }
    })
}

fn write_cache(device: &Device) -> Finding {
    let line = Line::new(
        format!("{} write cache", device.name),
        "an acknowledged write must be on the medium: free where the cache survives power loss (write through), one \
         flag where the disk knows FUA, and else a flush of the whole cache after each commit",
    );
    let recommended = "write through, or write back with FUA";
    line.judge(&device.write_cache, "not told", recommended, |line, cache| {
        match (cache.as_str(), device.force_unit_access.known()) {
            ("write through", _) => line.ok("write through", recommended),
            (cache, Some(1)) => line.ok(format!("{cache}, FUA"), recommended),
            (cache, _) => line.note(format!("{cache}, no FUA: a flush for each commit"), recommended).by_hand(
                "a disk with power-loss protection, or a virtual disk whose host says that it writes through; never \
                 `write through` written to the queue by hand on a cache that forgets",
            ),
        }
    })
}

fn blocks(device: &Device) -> Finding {
    let line = Line::new(
        format!("{} blocks", device.name),
        "commits are rounded up to the largest of physical block, file-system block and page; writing less than a \
         physical block makes the disk read first",
    );
    let recommended = format!("physical at most {BLOCK_BYTES_OK}");
    line.judge(&device.physical_block_bytes, "not told", &recommended, |line, physical| {
        let logical = device.logical_block_bytes.known().map_or("?".to_string(), u64::to_string);
        let current = format!("logical {logical}, physical {physical}");
        match *physical <= BLOCK_BYTES_OK {
            true => line.ok(current, &recommended),
            false => line.note(current, &recommended),
        }
    })
}

fn rotation(device: &Device, virtual_machine: bool) -> Finding {
    let name = &device.name;
    let line = Line::new(
        format!("{name} rotation"),
        "a rotating disk makes about a hundred commits a second; a virtual one that only says so gets allocators and \
         schedulers meant for heads",
    );
    line.judge(&device.rotational, "not told", "none", |line, rotational| match (*rotational, virtual_machine) {
        (0, _) => line.ok("none", "none"),
        (_, true) => line
            .note("says that it rotates, but is virtual", "none")
            .shell([format!("echo 0 > /sys/block/{name}/queue/rotational")]),
        _ => line.warn("rotates", "none").by_hand("a solid-state disk"),
    })
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn device_of(scheduler: &str, cache: &str, fua: u64) -> Device {
        Device {
            name: "nvme0n1".into(),
            scheduler: Reading::Known(scheduler.into()),
            write_cache: Reading::Known(cache.into()),
            force_unit_access: Reading::Known(fua),
            logical_block_bytes: Reading::Known(512),
            physical_block_bytes: Reading::Known(4096),
            rotational: Reading::Known(0),
            discard_bytes: Reading::Known(1 << 30),
        }
    }

    fn plain() -> Facts {
        Facts {
            data_dir: "/data/ottla".into(),
            mount: Reading::Known(mount("xfs", &["rw", "noatime"])),
            journal: Reading::Absent,
            space: Reading::Known((100 << 30, 200 << 30)),
            direct: Reading::Known(Some(DirectAlignment { memory_bytes: 4, offset_bytes: 512 })),
            devices: Reading::Known(vec![device_of("none", "write back", 1)]),
            virtual_machine: false,
        }
    }

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            point: "/data".into(),
            kind: kind.into(),
            source: "/dev/nvme0n1p1".into(),
            options: options.iter().map(|o| o.to_string()).collect(),
        }
    }

    fn mounted(kind: &str, options: &[&str]) -> Facts {
        Facts { mount: Reading::Known(mount(kind, options)), ..plain() }
    }

    #[test]
    fn a_good_disk_has_nothing_to_say() {
        let found = check(&plain());
        assert!(found.iter().all(|finding| finding.severity == Severity::Ok), "{found:#?}");
    }

    #[test]
    fn file_systems_are_told_apart() {
        let expected = [
            ("ext4", Severity::Ok),
            ("btrfs", Severity::Warn),
            ("tmpfs", Severity::Warn),
            ("overlay", Severity::Warn),
            ("fuse.sshfs", Severity::Warn),
            ("reiserfs", Severity::Note),
        ];
        for (kind, severity) in expected {
            assert_eq!(file_system(&mounted(kind, &["rw"])).severity, severity, "{kind}");
        }
        for (journal, severity) in [(true, Severity::Ok), (false, Severity::Note)] {
            let facts = Facts { journal: Reading::Known(journal), ..mounted("ext4", &["rw"]) };
            assert_eq!(file_system(&facts).severity, severity, "{journal}");
        }
    }

    #[test]
    fn missing_barriers_break_the_promise_unless_the_disk_writes_through() {
        let bare = mounted("ext4", &["rw", "nobarrier"]);
        assert_eq!(mount_options(&bare).severity, Severity::Bad);
        let through = Facts { devices: Reading::Known(vec![device_of("none", "write through", 0)]), ..bare };
        assert_eq!(mount_options(&through).severity, Severity::Ok);
        assert_eq!(mount_options(&mounted("ext4", &["rw", "data=journal"])).severity, Severity::Warn);
        assert_eq!(mount_options(&mounted("ext4", &["ro"])).severity, Severity::Bad);
        assert_eq!(mount_options(&mounted("ext4", &["rw", "sync"])).severity, Severity::Warn);
    }

    #[test]
    fn discard_at_once_is_noted_where_the_disk_does_it() {
        let facts = mounted("ext4", &["rw", "discard"]);
        assert_eq!(discard(&facts).severity, Severity::Note);
        let none = Device { discard_bytes: Reading::Known(0), ..device_of("none", "write back", 1) };
        assert_eq!(discard(&Facts { devices: Reading::Known(vec![none]), ..facts }).severity, Severity::Ok);
    }

    #[test]
    fn schedulers_and_caches_are_judged_by_what_the_disk_is() {
        let of = |name, virtual_machine, rotational| {
            let device = Device { rotational: Reading::Known(rotational), ..device_of(name, "write back", 1) };
            scheduler(&device, virtual_machine).severity
        };
        assert_eq!((of("none", false, 0), of("mq-deadline", false, 0)), (Severity::Ok, Severity::Note));
        assert_eq!((of("mq-deadline", false, 1), of("bfq", true, 1)), (Severity::Ok, Severity::Warn));
        assert_eq!(write_cache(&device_of("none", "write back", 0)).severity, Severity::Note);
        let spinning = Device { rotational: Reading::Known(1), ..device_of("none", "write back", 1) };
        assert_eq!(rotation(&spinning, false).severity, Severity::Warn);
        assert_eq!(rotation(&spinning, true).severity, Severity::Note);
        let large = Device { physical_block_bytes: Reading::Known(16_384), ..spinning };
        assert_eq!(blocks(&large).severity, Severity::Note);
    }

    #[test]
    fn room_and_direct_access_are_judged() {
        assert_eq!(space(&Facts { space: Reading::Known((1 << 30, 200 << 30)), ..plain() }).severity, Severity::Warn);
        assert_eq!(direct(&Facts { direct: Reading::Known(None), ..plain() }).severity, Severity::Warn);
        let absent = direct(&Facts { direct: Reading::Absent, ..plain() });
        assert!(absent.severity == Severity::Ok && absent.current.contains("not there yet"), "{absent:?}");
    }

    #[test]
    fn the_deepest_mount_of_the_right_device_is_found() {
        let text = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
                    40 27 259:1 / /da\\040ta rw - xfs /dev/nvme0n1p1 rw,noquota\n\
                    41 27 0:50 / /dat rw - tmpfs tmpfs rw\n";
        let number = nix::sys::stat::makedev(259, 1);
        let found = find_mount(text, Path::new("/da ta/ottla"), number).unwrap();
        assert_eq!((found.kind.as_str(), found.point.to_str()), ("xfs", Some("/da ta")));
        assert!(found.has("noquota") && found.has("rw"));
        let root = find_mount(text, Path::new("/data"), nix::sys::stat::makedev(254, 0)).unwrap();
        assert!(root.kind == "ext4" && root.has("discard"));
    }

    #[test]
    fn mapped_devices_lead_to_the_disks_below() {
        // dm-0 on a partition of one disk.
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(dir.path().join(path)).unwrap();
        make("devices/nvme0n1/nvme0n1p2");
        make("devices/nvme0n1/queue");
        make("devices/dm-0/slaves");
        std::fs::write(dir.path().join("devices/nvme0n1/nvme0n1p2/partition"), "2").unwrap();
        std::fs::write(dir.path().join("devices/nvme0n1/queue/scheduler"), "[none] mq-deadline").unwrap();
        let slave = dir.path().join("devices/nvme0n1/nvme0n1p2").canonicalize().unwrap();
        std::os::unix::fs::symlink(slave, dir.path().join("devices/dm-0/slaves/nvme0n1p2")).unwrap();
        let mut disks = Vec::new();
        whole_disks(&dir.path().join("devices/dm-0"), LAYER_COUNT_MAX, &mut disks);
        let found: Vec<Device> = disks.iter().map(|dir| device(dir)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), &found[0].scheduler), ("nvme0n1", &Reading::Known("none".into())));
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_one_above_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let facts = read(&Root::host(), &dir.path().join("a/b"), false);
        assert!(!dir.path().join("a").exists());
        assert_eq!(facts.direct, Reading::Absent);
        assert!(facts.mount.known().is_some() && facts.space.known().is_some());
        let facts = read(&Root::host(), dir.path(), false);
        assert!(facts.direct.known().is_some());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
