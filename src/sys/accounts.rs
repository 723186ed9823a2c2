//! Who a name is: /etc/passwd and /etc/group, read as text (passwd(5), group(5)).
//!
//! The C library's own look-ups load modules that a static program crashes in, hence this. Directory users
//! (LDAP, systemd-homed) are not in these files; their numbers work everywhere all the same. Lines that are
//! no entries (comments, `+` of NIS, broken ones) are skipped, as the C library does.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Users.
pub const PASSWD: &str = "/etc/passwd";

/// Groups.
pub const GROUP: &str = "/etc/group";

/// The longest account file that is read, in bytes: some hundred thousand entries.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Supplementary groups that the kernel takes (NGROUPS_MAX in Linux).
pub const MAX_GROUPS: usize = 65_536;

/// An entry of /etc/passwd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its first column.
    pub name: OsString,
    /// Its number.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// Its home folder; may be empty.
    pub home: OsString,
    /// Its shell; may be empty.
    pub shell: OsString,
}

/// The bytes of an account file. One that does not exist has no entries (containers often have none).
///
/// # Errors
/// EACCES and the like; InvalidData for one that is too long.
pub fn read(path: &str) -> io::Result<Vec<u8>> {
    let file = match File::open(Path::new(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(io::ErrorKind::InvalidData.into()),
        false => Ok(bytes),
    }
}

/// The first user of this name.
pub fn user_named(passwd: &[u8], name: &OsStr) -> Option<User> {
    users(passwd).find(|user| user.name == name)
}

/// The first user of this number.
pub fn user_numbered(passwd: &[u8], uid: u32) -> Option<User> {
    users(passwd).find(|user| user.uid == uid)
}

/// The number of the first group of this name.
pub fn group_named(group: &[u8], name: &OsStr) -> Option<u32> {
    groups(group).find(|entry| entry.name == name.as_bytes()).map(|entry| entry.gid)
}

/// What initgroups(3) would set for a user: `gid`, and every group that lists the user as a member.
pub fn groups_of(group: &[u8], name: &OsStr, gid: u32) -> Vec<u32> {
    let mut all = vec![gid];
    for entry in groups(group) {
        let mut members = entry.members.split(|b| *b == b',').filter(|member| !member.is_empty());
        let is_member = members.any(|member| member == name.as_bytes());
        if is_member && !all.contains(&entry.gid) && all.len() < MAX_GROUPS {
            all.push(entry.gid);
        }
    }
    all
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User> {
    entries(passwd).filter_map(|columns| {
        let [name, _, uid, gid, _, home, shell] = columns.as_slice() else { return None };
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some(User {
            name: text(name),
            uid: number(uid)?,
            gid: number(gid)?,
            home: text(home),
            shell: text(shell),
        })
    })
}

struct Group<'t> {
    name: &'t [u8],
    gid: u32,
    members: &'t [u8],
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    entries(group).filter_map(|columns| {
        let [name, _, gid, members] = columns.as_slice() else { return None };
        Some(Group { name, gid: number(gid)?, members })
    })
}

fn entries(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|b| *b == b'\n')
        .filter(|line| !matches!(line.first(), None | Some(b'#' | b'+' | b'-' | b':')))
        .map(|line| line.split(|b| *b == b':').collect())
}

/// Digits alone; u32::MAX means "none" to the kernel and is nobody's number.
fn number(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    let number = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok()? } else { return None };
    (number != u32::MAX).then_some(number)
}

/// Any account file, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &[u8]) -> String {
    let user = user_named(text, OsStr::new("deploy"));
    assert!(user.iter().all(|user| user.name == "deploy"));
    let numbered = user_numbered(text, 1000);
    assert!(numbered.iter().all(|user| user.uid == 1000));
    let groups = groups_of(text, OsStr::new("deploy"), 1000);
    assert!(groups.len() <= MAX_GROUPS);
    let group = group_named(text, OsStr::new("deploy"));
    format!("u{}{}{}{}", user.is_some(), numbered.is_some(), group.is_some(), "g".repeat(groups.len().min(3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n# comment\n\n+nis::::::\n-x:x:1:1::/:/\n\
        www:x:33:33:Web \xff:/var/www:/usr/sbin/nologin\nbroken:x:12\nhigh:x:4294967295:1::/:/\n\
        minus:x:-1:1::/:/\nwww:x:34:34:second:/:/\n0day:x:50:51::/:\nlast:x:99:99::/home/last:/bin/sh";
    const GROUP: &[u8] = b"root:x:0:\nadm:x:4:syslog,www\nwww:x:33:\ndocker:x:998:www,root\nsame:x:998:www\n\
        wwwx:x:5:wwwx\nbroken:x:y:www\nempty::7:,\n";

    #[test]
    fn a_name_is_its_first_entry_and_broken_lines_are_none() {
        let www = user_named(PASSWD, OsStr::new("www")).expect("it has an entry");
        assert_eq!((www.uid, www.gid), (33, 33));
        assert_eq!((www.home, www.shell), ("/var/www".into(), "/usr/sbin/nologin".into()));
        assert_eq!(user_named(PASSWD, OsStr::new("0day")).map(|user| user.uid), Some(50));
        assert_eq!(user_named(PASSWD, OsStr::new("last")).map(|user| user.home), Some("/home/last".into()));
        for name in ["", "broken", "high", "minus", "+nis", "nis", "-x", "# comment", "WWW", "ww", "1000x"] {
            assert_eq!(user_named(PASSWD, OsStr::new(name)), None, "{name}");
        }
        assert_eq!(user_named(b"", OsStr::new("root")), None);
    }

    #[test]
    fn a_number_finds_its_entry_if_there_is_one() {
        assert_eq!(user_numbered(PASSWD, 34).map(|user| user.name), Some("www".into()));
        assert_eq!(user_numbered(PASSWD, 65534), None);
        assert_eq!(user_numbered(PASSWD, u32::MAX), None);
    }

    #[test]
    fn supplementary_groups_are_those_that_list_the_user() {
        assert_eq!(groups_of(GROUP, OsStr::new("www"), 33), [33, 4, 998]);
        assert_eq!(groups_of(GROUP, OsStr::new("nobody"), 65534), [65534]);
        assert_eq!(groups_of(GROUP, OsStr::new(""), 1), [1], "an empty name is nobody's");
        assert_eq!(group_named(GROUP, OsStr::new("adm")), Some(4));
        assert_eq!(group_named(GROUP, OsStr::new("broken")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_file_is_too_strange(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            user_named(&bytes, OsStr::new("a"));
            user_numbered(&bytes, 0);
            groups_of(&bytes, OsStr::new("a"), 0);
        }
    }
}
