package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/elbsim"
	"berth/pkg/target"
	"berth/test/harness"
)

// TestService is the life of one host, in order: each part goes on from where the one before has left the machine.
func TestService(t *testing.T) {
	w := newWorld(t)
	web := w.serve(t) // nobody asks for it yet
	served := targetOf(t, web)
	more := harness.Unique("e2e-more")
	w.addGroup(t, more)

	part := func(name string, f func(*testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow() // the rest would only say so again
		}
	}
	part("boots", func(t *testing.T) {
		w.boot(t)
		w.run(t, fmt.Sprintf("groupadd --system --non-unique --gid %s docker", sh(t, nil, "stat", "-c", "%g", w.engine.Socket)))
		w.run(t, "systemctl enable --now docker.service web.service")
	})
	part("is installed and waits for a configuration", func(t *testing.T) {
		said := w.run(t, "dpkg -i /root/berth-"+versions[0]+".deb")
		if !strings.Contains(said, "no target group is configured yet") {
			t.Errorf("dpkg said %q; want what is to be done", said)
		}
		if state, _ := w.try(t, "systemctl is-enabled berth berth-boot"); strings.Contains(state, "enabled") {
			t.Errorf("without a configuration the units are %q; want them disabled", state)
		}
		if groups := w.run(t, "id -Gn berth"); groups != "berth docker" {
			t.Errorf("user berth is in groups %q; want berth and docker", groups)
		}
		// With the program at its place, nothing at all is to be complained about.
		if said := w.run(t, "systemd-analyze verify --man=no berth.service berth-boot.service berth-drain.service 2>&1"); strings.Contains(said, "berth") {
			t.Errorf("systemd-analyze verify: %s", said)
		}
		if said := w.run(t, "berth version"); !strings.Contains(said, versions[0]) {
			t.Errorf("berth version: %s", said)
		}
		if said := w.run(t, "zcat /usr/share/man/man8/berth-stop.8.gz"); !strings.Contains(said, "Exit codes") || !strings.Contains(said, versions[0]) {
			t.Errorf("the man page of berth stop: %s", said)
		}
		if said := w.run(t, "bash -c '. /usr/share/bash-completion/completions/berth && complete -p berth'"); !strings.Contains(said, "__start_berth") {
			t.Errorf("bash completes berth with %q", said)
		}
	})
	part("a configuration that comes after the first start is picked up", func(t *testing.T) {
		w.fails(t, "systemctl enable --now berth.service") // and is tried again
		harness.Eventually(t, harness.Patience, "the first start has failed", func() error {
			if result := w.property(t, "berth", "Result"); result != "exit-code" {
				return fmt.Errorf("result %q", result)
			}
			return nil
		})
		if code := w.property(t, "berth", "ExecMainStatus"); code != "2" {
			t.Errorf("without a target group berth ended with %s; want 2", code)
		}
		w.configure(t, w.group)
		w.waitActive(t)
		for unit, want := range map[string]string{"berth-drain": "active", "berth": "active"} {
			if state := w.property(t, unit, "ActiveState"); state != want {
				t.Errorf("%s is %s; want %s", unit, state, want)
			}
		}
		if state := w.run(t, "systemctl is-enabled berth berth-boot"); state != "enabled\nenabled" {
			t.Errorf("the units are %q; want them enabled", state)
		}
	})
	part("a container becomes healthy, and systemd is told", func(t *testing.T) {
		w.run(t, "berth wait "+web.Name+" --for healthy --timeout 1m")
		w.waitHealthy(t, served)
		harness.Eventually(t, harness.Patience, "the status says so", func() error {
			if status := w.property(t, "berth", "StatusText"); status != "1 target in 1 group" {
				return fmt.Errorf("it is %q", status)
			}
			return nil
		})
		if said := w.run(t, "berth status"); !strings.Contains(said, "healthy") {
			t.Errorf("berth status: %s", said)
		}
	})
	part("the control socket is for root and group berth", func(t *testing.T) { controlSocket(t, w) })
	part("what the units forbid", func(t *testing.T) { hardening(t, w) })
	part("restart, stop and start leave targets alone", func(t *testing.T) {
		w.unmoved(t, served, func() {
			w.run(t, "systemctl restart berth")
			w.looked(t)
			began := time.Now()
			w.run(t, "systemctl stop berth")
			t.Logf("the agent stopped in %v", time.Since(began))
			if result := w.property(t, "berth", "Result"); result != "success" {
				t.Errorf("result of the stop: %s", result)
			}
			w.run(t, "systemctl start berth")
			w.looked(t)
		})
		w.fails(t, "systemctl stop berth-drain") // it would drain nothing
	})
	part("a stop awaits the call in flight and begins no other", func(t *testing.T) { callInFlight(t, w, served) })
	part("reload", func(t *testing.T) { reload(t, w, served, more) })
	part("a frozen agent is started again", func(t *testing.T) { watchdog(t, w, served) })
	part("an upgrade moves no target", func(t *testing.T) {
		w.unmoved(t, served, func() {
			before := w.property(t, "berth", "MainPID")
			w.run(t, "dpkg -i /root/berth-"+versions[1]+".deb </dev/null")
			w.looked(t)
			if after := w.property(t, "berth", "MainPID"); after == before {
				t.Errorf("the agent has pid %s before and after; want a new one", after)
			}
		})
		if said := w.run(t, "berth status"); !strings.Contains(said, versions[1]) {
			t.Errorf("berth status: %s; want version %s", said, versions[1])
		}
		if said := w.run(t, "cat /etc/berth/berth.yaml"); !strings.Contains(said, w.group) {
			t.Errorf("the configuration has become %s", said)
		}
		if state := w.property(t, "berth-drain", "ActiveState"); state != "active" {
			t.Errorf("berth-drain is %s; want active", state)
		}
	})
	part("a shutdown drains before anything else stops", func(t *testing.T) {
		shutdown(t, w, served, "the host is drained: the load balancer has let go of it")
	})
	part("the next boot serves again", func(t *testing.T) {
		w.age(t)
		w.boot(t)
		w.waitHealthy(t, served)
	})
	part("the power fails, and the next boot cleans up before Docker starts", func(t *testing.T) { powerFailure(t, w, served) })
	part("a shutdown with a dead agent drains from the ledger", func(t *testing.T) {
		w.run(t, "berth wait "+web.Name+" --for healthy --timeout 1m")
		w.unmoved(t, served, func() { w.run(t, "systemctl stop berth") })
		shutdown(t, w, served, "deregistered 1 targets")
	})
	part("removal and purge leave what they say", func(t *testing.T) {
		w.age(t)
		w.boot(t)
		w.run(t, "berth wait "+web.Name+" --for healthy --timeout 1m") // so that the agent knows, too
		removal(t, w, served)
	})
}

func controlSocket(t *testing.T, w *world) {
	if mode := w.run(t, "stat -c '%a %U:%G' /run/berth/berth.sock"); mode != "660 berth:berth" {
		t.Errorf("control socket: %s; want 660 berth:berth", mode)
	}
	said := w.fails(t, "setpriv --reuid=nobody --regid=nogroup --clear-groups berth reload")
	if !strings.Contains(said, "permission denied on the control socket") || !strings.Contains(said, "group berth") {
		t.Errorf("a stranger was told %q; want that root and group berth may", said)
	}
	// Whoever may not change anything may still look, on the loopback interface.
	if said := w.run(t, "setpriv --reuid=nobody --regid=nogroup --clear-groups berth status --status-listen "+w.addr); !strings.Contains(said, "healthy") {
		t.Errorf("berth status of a stranger: %s", said)
	}
	w.run(t, "setpriv --reuid=nobody --regid=berth --clear-groups berth reload")
	if said := w.run(t, "journalctl -b -u berth -o cat --no-pager | grep 'request carried out' | tail -n 1"); !strings.Contains(said, `"uid":65534`) {
		t.Errorf("the log says %s; want who asked", said)
	}
}

// callInFlight stops the agent while AWS has a registration and has not answered it: once with an answer to come, once
// without. Both times the agent is gone within 5 s, has sent nothing else, and the next one moves no target.
func callInFlight(t *testing.T, w *world, served target.Target) {
	for _, fault := range []elbsim.Fault{
		{Kind: elbsim.FaultLatency, Delay: elbsim.Duration(1500 * time.Millisecond)},
		{Kind: elbsim.FaultLost}, // it takes effect, and nobody hears of it
	} {
		fault.Action = "RegisterTargets"
		id, err := w.sim.AddFault(fault)
		if err != nil {
			t.Fatal(err)
		}
		w.sim.ResetCalls()
		late := w.serve(t)
		harness.Eventually(t, harness.Patience, "the call is in flight", func() error {
			for _, f := range w.sim.Faults() {
				if f.ID == id && f.Struck > 0 {
					return nil
				}
			}
			return errors.New("it has not come")
		})
		began := time.Now()
		w.run(t, "systemctl stop berth")
		took := time.Since(began)
		t.Logf("%s: the agent stopped in %v", fault.Kind, took)
		if took > 5*time.Second {
			t.Errorf("%s: the agent took %v to stop; want 5 s at most", fault.Kind, took)
		}
		if result := w.property(t, "berth", "Result"); result != "success" {
			t.Errorf("%s: result of the stop: %s", fault.Kind, result)
		}
		both := []target.Target{served, targetOf(t, late)}
		slices.SortFunc(both, target.Target.Compare)
		if got := w.sim.Registered(w.group); !slices.Equal(got, both) {
			t.Errorf("%s: registered: %v; want %v", fault.Kind, got, both)
		}
		if n := len(w.sim.CallsOf("RegisterTargets")); n > 1 {
			t.Errorf("%s: %d registrations; want the one in flight alone", fault.Kind, n)
		}
		if said := w.run(t, "berth ledger"); !strings.Contains(said, both[0].String()) || !strings.Contains(said, both[1].String()) {
			t.Errorf("%s: saved: %s; want %v", fault.Kind, said, both)
		}
		w.sim.RemoveFault(id)
		w.run(t, "systemctl start berth")
		w.run(t, "berth wait "+late.Name+" --for registered --timeout 1m")
		if calls := w.sim.CallsOf("DeregisterTargets"); len(calls) > 0 {
			t.Errorf("%s: deregistered: %v; want no target to move", fault.Kind, calls)
		}
		late.Stop(t)
		w.run(t, "berth wait "+late.Name+" --for drained --timeout 1m")
		if got := w.sim.Registered(w.group); !slices.Equal(got, []target.Target{served}) {
			t.Errorf("%s: registered in the end: %v; want %v", fault.Kind, got, served)
		}
		w.looked(t)
	}
}

func reload(t *testing.T, w *world, served target.Target, more string) {
	w.unmoved(t, served, func() {
		w.configure(t, w.group, more)
		w.run(t, "systemctl reload berth")
		harness.Eventually(t, harness.Patience, "the second group is served", func() error {
			// After a restart its target's health may not have been looked at yet: that has time.
			if status := w.property(t, "berth", "StatusText"); !regexp.MustCompile(`^1 target in 2 groups\b`).MatchString(status) {
				return fmt.Errorf("status %q", status)
			}
			return nil
		})

		for name, content := range map[string]string{"a bad": "target_groups: {web: {prot: 80}}\n", "an empty": "\n"} {
			w.write(t, "/etc/berth/berth.yaml", content)
			w.fails(t, "systemctl reload berth")
			if said := w.fails(t, "berth reload"); !strings.Contains(said, "the one before it stays in force") {
				t.Errorf("reload of %s file: %s; want that it was refused", name, said)
			}
			if state := w.property(t, "berth", "ActiveState"); state != "active" {
				t.Errorf("after a reload of %s file berth is %s", name, state)
			}
			if said := w.run(t, "berth status"); !strings.Contains(said, "the last reload was refused") {
				t.Errorf("berth status after a reload of %s file: %s", name, said)
			}
		}
		w.configure(t, w.group)
		w.run(t, "systemctl kill --signal=HUP --kill-who=main berth")
		harness.Eventually(t, harness.Patience, "SIGHUP is a reload", func() error {
			if status := w.property(t, "berth", "StatusText"); !regexp.MustCompile(`^1 target in 1 group\b`).MatchString(status) {
				return fmt.Errorf("status %q", status)
			}
			return nil
		})
	})
}

func watchdog(t *testing.T, w *world, served target.Target) {
	// The unit's own 30 s and 10 s would only make the test slower.
	w.run(t, `mkdir -p /run/systemd/system/berth.service.d &&
		printf '[Service]\nWatchdogSec=2\nRestartSec=1\nTimeoutAbortSec=2\n' >/run/systemd/system/berth.service.d/quick.conf &&
		systemctl daemon-reload && systemctl restart berth`)
	w.looked(t)
	w.unmoved(t, served, func() {
		frozen := w.property(t, "berth", "MainPID")
		w.run(t, "kill -STOP "+frozen)
		harness.Eventually(t, harness.Patience, "another agent runs", func() error {
			pid, state := w.property(t, "berth", "MainPID"), w.property(t, "berth", "ActiveState")
			if pid == frozen || pid == "0" || state != "active" {
				return fmt.Errorf("pid %s (frozen: %s), %s", pid, frozen, state)
			}
			return nil
		})
		if said := w.run(t, "journalctl -b -u berth --no-pager"); !strings.Contains(said, "Watchdog timeout") {
			t.Errorf("the journal has no watchdog's timeout:\n%s", said)
		}
		w.looked(t)
		lastWords(t, w)
	})
	w.run(t, "rm -r /run/systemd/system/berth.service.d && systemctl daemon-reload && systemctl restart berth")
	w.looked(t)
}

// lastWords has the agent write down what each goroutine does and end, as the watchdog has, and a panic does. In the journal
// that is an error, and nothing that the agent says in good health is one.
func lastWords(t *testing.T, w *world) {
	before := w.property(t, "berth", "MainPID")
	w.run(t, "systemctl kill --signal=ABRT --kill-who=main berth")
	harness.Eventually(t, harness.Patience, "another agent runs", func() error {
		if pid, state := w.property(t, "berth", "MainPID"), w.property(t, "berth", "ActiveState"); pid == before || pid == "0" || state != "active" {
			return fmt.Errorf("pid %s (before: %s), %s", pid, before, state)
		}
		return nil
	})
	errs := w.run(t, "journalctl -b -u berth -p err -o cat --no-pager")
	for _, want := range []string{"SIGABRT: abort", "goroutine "} {
		if !strings.Contains(errs, want) {
			t.Errorf("the journal has no error %q:\n%s", want, errs)
		}
	}
	if strings.Contains(errs, `"level":"info"`) || strings.Contains(errs, `"level":"warn"`) {
		t.Errorf("the journal takes for errors:\n%s", errs)
	}
	if infos := w.run(t, "journalctl -b -u berth -p info..info -o cat --no-pager"); !strings.Contains(infos, `{"level":"info"`) {
		t.Errorf("the journal has nothing of level info:\n%s", infos)
	}
	w.looked(t)
}

// powerFailure ends the machine with a target registered. When it boots again the ledger is another boot's.
func powerFailure(t *testing.T, w *world, served target.Target) {
	w.cutPower(t)
	if got := w.sim.Registered(w.group); !slices.Equal(got, []target.Target{served}) {
		t.Fatalf("registered after the power has failed: %v; want %v", got, served)
	}
	w.age(t)
	w.sim.ResetCalls()
	w.boot(t)
	w.waitHealthy(t, served) // its container runs outside, and is wanted again
	docker := w.stamp(t, "/var/docker-started")
	first := firstCall(t, w, "DeregisterTargets", served)
	if !first.Time.Before(docker) {
		t.Errorf("deregistered at %v, Docker started at %v; want it before", first.Time, docker)
	}
	if said := w.run(t, "journalctl -b -u berth-boot -o cat --no-pager"); !strings.Contains(said, "deregistered 1 targets of an earlier boot") {
		t.Errorf("berth-boot said %s", said)
	}
}

func firstCall(t *testing.T, w *world, action string, of target.Target) elbsim.Call {
	t.Helper()
	for _, call := range w.sim.CallsOf(action) {
		if slices.Contains(call.Targets, of) && call.Outcome == "ok" {
			return call
		}
	}
	t.Fatalf("there was no %s of %v: %v", action, of, w.sim.CallsOf(action))
	return elbsim.Call{}
}

// shutdown has the machine shut down, and expects its target to be gone before anything that serves it stops.
func shutdown(t *testing.T, w *world, served target.Target, said string) {
	// As the documentation says: units that run containers themselves are ordered by a drop-in.
	w.run(t, `mkdir -p /etc/systemd/system/berth-drain.service.d &&
		sed 's/^After=.*/After=web.service/' /usr/share/doc/berth/examples/berth-drain-order.conf >/etc/systemd/system/berth-drain.service.d/order.conf &&
		mkdir -p /var/log/journal && systemctl daemon-reload && journalctl --flush`)
	w.sim.ResetCalls()
	began := time.Now()
	w.shutDown(t)
	t.Logf("shut down in %v", time.Since(began))
	if got := w.sim.Registered(w.group); len(got) > 0 {
		t.Errorf("registered when the machine is off: %v; want none", got)
	}
	gone := firstCall(t, w, "DeregisterTargets", served).Time
	for _, unit := range []string{"docker", "web"} {
		if stopped := w.stamp(t, "/var/"+unit+"-stopped"); stopped.Sub(gone) < 9*time.Second {
			t.Errorf("%s stopped %v after its target was deregistered; want the 10 s in which a load balancer settles", unit, stopped.Sub(gone))
		}
	}
	journal := sh(t, nil, "journalctl", "--no-pager", "-o", "cat", "-u", "berth-drain", "-D", w.fetch(t, "/var/log/journal"))
	t.Logf("berth-drain said:\n%s", journal)
	if !strings.Contains(journal, said) {
		t.Errorf("berth-drain said %q; want %q", journal, said)
	}
}

func removal(t *testing.T, w *world, served target.Target) {
	w.unmoved(t, served, func() {
		said := w.run(t, "dpkg -r berth")
		if !strings.Contains(said, "stay registered") || !strings.Contains(said, fmt.Sprintf("%s:%d", instance, served.Port)) {
			t.Errorf("removal said %q; want the target that stays", said)
		}
	})
	if _, err := w.try(t, "systemctl is-active berth"); err == nil {
		t.Error("berth is active after the package's removal")
	}
	for path, stays := range map[string]bool{
		"/usr/bin/berth": false, "/lib/systemd/system/berth.service": false, "/etc/systemd/system/multi-user.target.wants/berth.service": false,
		"/etc/berth/berth.yaml": true, "/var/lib/berth/ledger.json": true,
	} {
		exists(t, w, path, stays)
	}

	// It comes back as it was: enabled, and with its ledger. It may register once more what it had registered just before
	// it was stopped and not seen yet, which moves nothing.
	w.sim.ResetCalls()
	w.run(t, "dpkg -i /root/berth-"+versions[1]+".deb </dev/null")
	w.looked(t)
	if calls := w.sim.CallsOf("DeregisterTargets"); len(calls) > 0 {
		t.Errorf("installed again it deregisters: %v", calls)
	}
	if state := w.run(t, "systemctl is-enabled berth"); state != "enabled" {
		t.Errorf("installed again it is %s; want enabled", state)
	}
	w.write(t, "/etc/berth/conf.d/other.yaml", "# of another package\n")
	w.run(t, "dpkg --purge berth")
	for path, stays := range map[string]bool{
		"/etc/berth/berth.yaml": false, "/var/lib/berth": false, "/etc/berth/conf.d/other.yaml": true,
	} {
		exists(t, w, path, stays)
	}
	if got := w.sim.Registered(w.group); !slices.Equal(got, []target.Target{served}) {
		t.Errorf("registered after the purge: %v; want %v", got, served)
	}
	harness.Eventually(t, harness.Patience, "nothing of berth is left running", func() error {
		if out, err := w.try(t, "pgrep -x berth || ps -e -o comm= | grep -x berth"); err == nil {
			return errors.New(out)
		}
		return nil
	})
}

func exists(t *testing.T, w *world, path string, want bool) {
	t.Helper()
	if _, err := w.try(t, "test -e "+path+" -o -L "+path); (err == nil) != want {
		t.Errorf("%s exists: %v; want %v", path, err == nil, want)
	}
}
