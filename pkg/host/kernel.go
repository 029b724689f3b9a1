package host

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the kernel says of this host.

// SinceBoot returns the milliseconds since the host was booted, suspended or not: more with each start of the agent, by more
// than an agent publishes in the time, whatever becomes of the wall clock.
func SinceBoot() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0 // only a kernel before Linux 2.6.39 does not know that clock
	}
	return uint64(max(0, now.Nano()/int64(time.Millisecond)))
}

// BootID returns the kernel's id of this boot; "" where there is none to read, which is no boot's.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// PortRange returns the range that Docker picks host ports from, as "32768 to 60999"; "" where the kernel does not tell.
func PortRange() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	ports := strings.Fields(string(b))
	if err != nil || len(ports) != 2 {
		return ""
	}
	return ports[0] + " to " + ports[1]
}
