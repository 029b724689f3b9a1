// Package host knows the EC2 instance that Berth runs on: who it is, and what is about to happen to it. All of it
// comes from the instance metadata service (IMDS), version 2 alone.
//
// host.go holds the values and the snapshot, metadata.go the client, trouble.go what is said when it gets no answer,
// identity.go the waiting for an identity and the check of overrides, notices.go the polling of notices, hooks.go what is
// told to the autoscaling group.
package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/zap"
)

// Identity is what the instance is called and where it stands.
type Identity struct {
	InstanceID       string
	Region           string
	AvailabilityZone string
	AccountID        string     // 12 digits
	PrivateIP        netip.Addr // primary private IPv4 of the primary interface; zero in a subnet without IPv4
	IPv6             netip.Addr // first IPv6 of the primary interface; zero: it has none, or none is known yet
	VPC              string     // empty: not known yet
	MAC              string     // of the primary interface; empty: not known yet
	// Verified reports that the metadata service confirmed the identity; false: overrides alone name it.
	Verified bool
}

// Override replaces what the metadata service would say, where it cannot say it. An empty field overrides nothing.
type Override struct {
	InstanceID string
	Region     string
}

func (o Override) complete() bool { return o.InstanceID != "" && o.Region != "" }

// ErrContradiction is wrapped by a *ContradictionError.
var ErrContradiction = errors.New("override contradicts the instance metadata service")

// ErrDisabled says that AWS_EC2_METADATA_DISABLED (or the shared configuration) keeps the metadata service from being
// asked, so that without overrides of both instance id and region there will never be an identity.
var ErrDisabled = errors.New("the instance metadata service is disabled (AWS_EC2_METADATA_DISABLED): set instance_id and region")

// ContradictionError is an override that the metadata service contradicts. An id baked into an AMI would make every
// host of a fleet register one instance, so the agent must not run with it.
type ContradictionError struct {
	Key      string // instance_id or region, as the configuration calls it
	Override string
	Actual   string // what the metadata service says
}

// Error names both values.
func (e *ContradictionError) Error() string {
	return fmt.Sprintf("%s: %q: the instance metadata service says %q: remove the override", e.Key, e.Override, e.Actual)
}

// Unwrap returns ErrContradiction.
func (e *ContradictionError) Unwrap() error { return ErrContradiction }

// Kind is the kind of a notice.
type Kind string

// The kinds, in the order of a snapshot.
const (
	Spot        Kind = "spot"        // EC2 takes the spot instance back
	Lifecycle   Kind = "lifecycle"   // the autoscaling group takes, or keeps, the instance out of service
	Rebalance   Kind = "rebalance"   // EC2 thinks that the spot instance may be taken back: advice, often wrong
	Maintenance Kind = "maintenance" // EC2 has scheduled work on the instance: to be shown, not acted on
)

// Notice is one thing that is about to happen to the instance.
type Notice struct {
	Kind Kind `json:"kind"`
	// Action is the metadata service's word: terminate, stop or hibernate; the target lifecycle state (Terminated,
	// Detached, Standby, Warmed:Stopped, ...); a maintenance event's code (system-reboot, ...); rebalance has none.
	Action string `json:"action,omitempty"`
	// At is when the notice was given, or first seen where it does not say.
	At time.Time `json:"at"`
	// Deadline is when it happens; zero: not known. A spot notice stays for 10 minutes after it is gone and its
	// deadline has passed, in case the instance lives on.
	Deadline time.Time `json:"deadline,omitzero"`
}

// same reports whether both say the same of the same event: when it was first seen does not matter.
func (n Notice) same(o Notice) bool {
	return n.Kind == o.Kind && n.Action == o.Action && n.Deadline.Equal(o.Deadline)
}

// Snapshot is what is known of the host at one moment. It is immutable.
type Snapshot struct {
	// Identity is nil until it is known.
	Identity *Identity
	// Notices are those in force, by kind. A read that fails changes nothing here.
	Notices []Notice
	// LifecycleKnown reports that the autoscaling lifecycle state was read once, or could not be read for 30 s: only
	// then may a starting agent register, or it would undo a transition that is under way.
	LifecycleKnown bool
	// LifecycleRead reports that it was read at least once: only then does the absence of a notice say anything.
	LifecycleRead bool
	// Waiting says in one line what the metadata service does not answer, and why; empty: it answers all.
	Waiting string
	// Change says what to change about it.
	Change string
	// Since is when Waiting began, or ended.
	Since time.Time
}

// Options are the parts of Notices that have a choice.
type Options struct {
	Override Override
	// AWS carries the SDK's ordinary settings for the metadata service (endpoint, endpoint mode, disabled) in its
	// ConfigSources; its HTTP client and retry policy are not used. The zero value obeys the environment variables
	// AWS_EC2_METADATA_SERVICE_ENDPOINT and AWS_EC2_METADATA_DISABLED.
	AWS aws.Config
	// Transport carries the requests; nil: a direct one. The metadata service is never asked through a proxy, whatever
	// the environment says: the proxy would answer for its own instance.
	Transport http.RoundTripper
}

// Notices asks the metadata service who the host is and what is about to happen to it. Its methods may be called from
// any goroutine.
type Notices struct {
	log      *zap.Logger
	override Override
	// One client a goroutine: a client holds a lock while it fetches its token, and a slow answer to one question must
	// not delay the next about spot.
	identityIMDS, spotIMDS, eventIMDS *metadata
	disabled                          bool

	snapshot atomic.Pointer[published]
	mu       sync.Mutex         // guards what follows, and the replacement of snapshot
	failing  map[string]trouble // what cannot be read, and why
	said     time.Time          // when the trouble that is in the log began; zero: none is
	flapping bool               // it comes and goes
	calm     time.Time          // since when all is answered; of use while nothing fails
}

// calmFor is how long everything has to be answered after a service that failed now and then: that is one trouble, and
// not one each time.
const calmFor = 30 * time.Second

type published struct {
	Snapshot
	next chan struct{} // closed when it is replaced
}

// New returns the notices of this host. It asks nothing yet.
func New(log *zap.Logger, o Options) *Notices {
	n := &Notices{log: log.Named("host"), override: o.Override, failing: map[string]trouble{}}
	transport := o.Transport
	if transport == nil {
		transport = directTransport()
	}
	n.identityIMDS = newMetadata(o.AWS, transport)
	n.spotIMDS = newMetadata(o.AWS, transport)
	n.eventIMDS = newMetadata(o.AWS, transport)
	n.disabled = n.identityIMDS.disabled
	n.snapshot.Store(&published{next: make(chan struct{})})
	return n
}

// Snapshot returns what is known, and a channel that closes when there is something newer.
func (n *Notices) Snapshot() (*Snapshot, <-chan struct{}) {
	p := n.snapshot.Load()
	return &p.Snapshot, p.next
}

// Run polls for notices and completes the identity in the background, until ctx ends (then it returns nil) or the
// metadata service contradicts an override that was taken in its absence (then a *ContradictionError: the agent must
// stop).
func (n *Notices) Run(ctx context.Context) error {
	defer n.identityIMDS.closeIdle()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if n.disabled {
		n.change(func(s *Snapshot) { s.LifecycleKnown = true })
		n.log.Warn("no notices of spot or autoscaling: the instance metadata service is disabled")
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.pollSpot(ctx) })
	wg.Go(func() { n.pollEvents(ctx) })
	wg.Go(func() {
		if err := n.completeIdentity(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Wait()
	if err := context.Cause(ctx); errors.Is(err, ErrContradiction) {
		return err
	}
	return nil
}

// change publishes a new snapshot. f must not keep what it is given.
func (n *Notices) change(f func(*Snapshot)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changeLocked(f)
}

func (n *Notices) changeLocked(f func(*Snapshot)) {
	old := n.snapshot.Load()
	updated := &published{Snapshot: old.Snapshot, next: make(chan struct{})}
	updated.Notices = slices.Clone(old.Notices)
	f(&updated.Snapshot)
	n.snapshot.Store(updated)
	close(old.next)
}

// outcome records whether a question was answered. However many questions fail, and however often, it is logged when
// the first one fails and when none does any more; if that comes and goes, once, and when none has failed for calmFor.
// Questions are asked every few seconds, so that it hears of that.
func (n *Notices) outcome(question string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && len(n.failing) == 0 && n.flapping && time.Since(n.calm) >= calmFor {
		n.answersAgain()
	}
	if _, failed := n.failing[question]; failed == (err != nil) {
		return
	}
	if err != nil {
		t := troubleOf(question, err)
		n.failing[question] = t
		if n.said.IsZero() {
			n.said, n.flapping = time.Now(), time.Since(n.calm) < calmFor
			message := "waiting for the instance metadata service"
			if n.flapping {
				message = "the instance metadata service answers now and then"
			}
			text, change := describe([]trouble{t})
			n.log.Warn(message, zap.String("error", text), zap.String("change", change))
		}
	} else {
		delete(n.failing, question)
		if len(n.failing) == 0 {
			n.calm = time.Now()
			if !n.flapping {
				n.answersAgain()
			}
		}
	}
	n.changeLocked(func(s *Snapshot) {
		waiting, change := describe(slices.Collect(maps.Values(n.failing)))
		if (waiting == "") != (s.Waiting == "") {
			s.Since = time.Now()
		}
		s.Waiting, s.Change = waiting, change
	})
}

// answersAgain logs the end of the trouble. mu is held.
func (n *Notices) answersAgain() {
	n.log.Info("the instance metadata service answers again", zap.Duration("after", n.calm.Sub(n.said)))
	n.said, n.flapping = time.Time{}, false
}
