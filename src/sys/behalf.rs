//! Files that are handled for a user who can exchange their folders: with that user's rights, so that no link leads
//! further than the user gets alone, whenever it was put there. Nothing here decides for whom.
//!
//! The rights are those of the thread, for the file system only (setfsuid(2)), with that user's groups; who may
//! signal or trace us goes by other ids. Descriptors that were opened so are used like any other.

use std::io;
use std::sync::Arc;

use super::guise::Guise;
use super::rights;
use super::settings::Identity;

/// With whose rights files are handled; the default is our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behalf(Option<Arc<Identity>>);

impl Behalf {
    /// With those of this user.
    pub fn of(identity: Identity) -> Behalf {
        Behalf(Some(Arc::new(identity)))
    }

    /// This thread handles files with these rights until what is returned is dropped.
    ///
    /// # Errors
    /// EPERM: we may not take them on (CAP_SETUID, CAP_SETGID), or would keep rights over everybody's files
    /// (SECBIT_NO_SETUID_FIXUP in capabilities(7)).
    pub fn begin(&self) -> io::Result<Option<Guise>> {
        let Some(identity) = &self.0 else { return Ok(None) };
        let refused = || io::Error::from_raw_os_error(libc::EPERM);
        let guise = Guise::take(identity.uid, identity.gid, Some(&identity.groups)).ok_or_else(refused)?;
        match identity.uid != 0 && rights::overrides_files() {
            true => Err(refused()),
            false => Ok(Some(guise)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    use super::*;

    #[test]
    fn files_are_made_and_refused_as_the_users_and_nothing_stays() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (path, secret) = (folder.path().join("a"), folder.path().join("secret"));
        fs::write(&secret, "x").expect("it is ours");
        for (path, mode, owner) in [(folder.path(), 0o755, 4711), (&*secret, 0o640, 0)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
            chown(path, Some(owner), Some(if owner == 0 { 4 } else { owner })).expect("we are root");
        }
        let groups = rustix::process::getgroups().expect("a list");
        let behalf = |groups: &[u32]| Behalf::of(Identity { uid: 4711, gid: 4711, groups: groups.to_vec() });
        {
            let _guise = behalf(&[4711]).begin().expect("we are root");
            File::create(&path).expect("the folder is the user's");
            File::open(&secret).expect_err("only root and its group may read it");
            // Within another one.
            let _again = behalf(&[4711, 4]).begin().expect("we are root");
            File::open(&secret).expect("the group may read it");
        }
        assert_eq!(rustix::process::getgroups().expect("a list"), groups);
        fs::write(folder.path().join("b"), "x").expect("we are root");
        let owner = |name: &str| fs::metadata(folder.path().join(name)).expect("it is there").uid();
        assert_eq!((owner("a"), owner("b")), (4711, 0));
    }
}
