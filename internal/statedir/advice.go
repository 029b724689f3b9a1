package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Advise adds to an error about the state directory what to change: it is what a first start without systemd, or one
// as somebody else than before, stumbles over.
func Advise(dir string, err error) error {
	me := userName(os.Geteuid())
	info, statErr := os.Stat(dir)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOTDIR), statErr == nil && !info.IsDir():
		return fmt.Errorf("%w; name a directory: --state-dir, BERTH_STATE_DIR, or state_dir in the configuration", err)
	case !errors.Is(err, fs.ErrPermission) && !errors.Is(err, ErrUnsafe):
		return err
	case statErr != nil && errors.Is(statErr, fs.ErrNotExist):
		return fmt.Errorf("%w; user %s may not make the directory: make it (install -d -o %s -m 0750 %s), or name another with --state-dir", err, me, me, dir)
	case statErr != nil:
		return fmt.Errorf("%w; user %s may not look into the directories above it: run this as root, or as the agent's user", err, me)
	}
	owner := ownerName(info)
	if owner == me || errors.Is(err, ErrUnsafe) {
		return fmt.Errorf("%w; all in it must be files that user %s owns and may write: chown -R %s %s && chmod -R u+rwX %s", err, owner, owner, dir, dir)
	}
	return fmt.Errorf("%w; it belongs to user %s and this runs as %s: run it as %s, or give it away (chown -R %s %s)", err, owner, me, owner, me, dir)
}

func ownerName(info fs.FileInfo) string {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "unknown"
	}
	return userName(int(s.Uid))
}

// userName names a user, by number where it has no name here.
func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
