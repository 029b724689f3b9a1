package registrar

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/registrar/pacer"
	"berth/pkg/target"
)

// clock takes in how far this host's clock is ahead of that of AWS. The SDK makes up for it in its signatures; what is
// wrong by as much is every time in log and status, and whatever else on the host goes by the clock.
func (r *Registrar) clock(ahead time.Duration) {
	r.env.metrics.calls().Clock(ahead)
	before := r.clockAhead
	limit := elb.ClockFar
	if before != 0 {
		limit = elb.ClockNear
	}
	switch far := ahead.Abs() >= limit; {
	case far && (ahead-before).Abs() < elb.ClockNear, !far && before == 0:
		return
	case far && before == 0:
		r.env.log.Warn("this host's clock is far from that of AWS", zap.Duration("ahead", ahead.Round(time.Second)), zap.String("change", elb.ClockChange))
	case !far:
		r.env.log.Info("this host's clock agrees with that of AWS again")
		ahead = 0
	}
	r.clockAhead = ahead
	r.env.board.edit(func() { r.env.board.head.ClockAhead = ahead })
}

// Connect waits until this host's identity is known and returns it with a client for its region. It retries by itself
// and ends early only with ctx, or with an error that no waiting cures.
type Connect func(ctx context.Context) (elb.API, elb.Self, error)

// Options are what a Registrar can do without.
type Options struct {
	Log     *zap.Logger
	Metrics *Metrics
	Pacer   *pacer.Pacer // nil: one of its own
	// BootID is this boot's; entries of the ledger that another boot wrote prove nothing about the present. Empty: it is
	// not known, and no entry does.
	BootID string
	// WriteTimeout bounds RegisterTargets and DeregisterTargets, 3 s by default: longer, and a removal waits longer
	// behind a registration that hangs. ReadTimeout bounds the describes, 5 s by default.
	WriteTimeout, ReadTimeout time.Duration
	// Peers is the number of hosts that share the account's rate limits in this region; 0: count those seen.
	Peers int
	// DryRun looks at every group and says what would be done, in the log and as Pending, and does nothing of it.
	DryRun bool
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.Log = o.Log.Named("registrar")
	if o.Pacer == nil {
		o.Pacer = pacer.New(o.Metrics.PacerInterval)
	}
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 3*time.Second)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, 5*time.Second)
	return o
}

// calls are the options of the calls; a nil onCredentials is told nothing.
func (o Options) calls(onCredentials func(*elb.CallError)) elb.Options {
	return elb.Options{
		Metrics: o.Metrics.calls(), WriteTimeout: o.WriteTimeout, ReadTimeout: o.ReadTimeout, DryRun: o.DryRun, OnCredentials: onCredentials,
	}
}

// Registrar brings target groups to what is wanted. It supervises a finder for each reference of the configuration
// and a reconciler for each group's ARN: two references to one group are one reconciler, and renaming a key makes no
// call.
type Registrar struct {
	connect Connect
	env     *environment
	calls   elb.Options
	desired atomic.Pointer[Desired]
	wake    chan struct{}
	learned atomic.Pointer[elb.Self] // what Identify has said since
	turned  atomic.Pointer[time.Time]
	creds   atomic.Pointer[credentialsTrouble]

	clockAhead time.Duration // as Snapshot has it; of the calls' replies, one at a time

	// Owned by Run.
	self        elb.Self
	finders     map[string]*finder   // by reference.key
	found       map[string]elb.Facts // by reference.key
	missing     map[string]finding   // by reference.key
	reconcilers map[string]*reconciler
	recovered   map[string][]ledger.Entry // by ARN: what the ledger held at the start, until a reconciler has taken it over
	findings    chan finding
	moves       moves
	moving      atomic.Bool // a group is held for a key that names another one
	goneARN     chan string
	ended       chan string
	children    sync.WaitGroup
}

// New returns a registrar that keeps its record in ledger. It makes no call before Run, and none before the first
// Apply.
func New(connect Connect, kept *ledger.Ledger, o Options) *Registrar {
	o = o.withDefaults()
	r := &Registrar{
		connect: connect, wake: make(chan struct{}, 1),
		finders: map[string]*finder{}, found: map[string]elb.Facts{}, missing: map[string]finding{},
		reconcilers: map[string]*reconciler{}, recovered: map[string][]ledger.Entry{},
		moves:    newMoves(),
		findings: make(chan finding), goneARN: make(chan string, 16), ended: make(chan string),
	}
	o.Pacer.SetPeers(o.Peers)
	r.env = &environment{
		pacer: o.Pacer, ledger: kept, metrics: o.Metrics, log: o.Log, bootID: o.BootID, dry: o.DryRun, started: time.Now(),
		board: newBoard(), followers: &followers{count: map[string]int{}, pokes: map[*reconciler]bool{}},
		census: pacer.NewCensus(o.Peers), mended: newMended(),
	}
	r.calls = o.calls(r.credentials)
	r.env.accepted = func() {
		if r.moving.Load() {
			r.again()
		}
	}
	r.env.gone = func(groupARN string) {
		select {
		case r.goneARN <- groupARN:
		default: // the reconciler says it again with its next failed call
		}
	}
	return r
}

// Apply makes d what the registrar works towards: the latest wins. It never blocks.
func (r *Registrar) Apply(d Desired) {
	r.desired.Store(&d)
	r.again()
	runtime.Gosched() // the caller's own work can wait: this is on its way to the load balancer
}

// Identify says what was learned about this host after connect: its VPC, its IPv6 address, or its account and primary
// address where connect knew none. Another instance id, region or account is not taken. It never blocks.
func (r *Registrar) Identify(self elb.Self) {
	r.learned.Store(&self)
	r.again()
}

// again has the supervisor look at everything once more.
func (r *Registrar) again() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Snapshot returns the state of all groups, and a channel that closes when there is a newer one.
func (r *Registrar) Snapshot() (*Snapshot, <-chan struct{}) { return r.env.board.snapshot() }

// Follow asks to look often at the groups of these keys, because somebody waits, until stop is called.
func (r *Registrar) Follow(keys []string) (stop func()) {
	keys = slices.Clone(keys)
	r.env.followers.add(keys, 1)
	return sync.OnceFunc(func() { r.env.followers.add(keys, -1) })
}

// Prune takes these targets of the group that key names for ours, so that they are deregistered, should they be
// unclaimed at that moment: nothing else is touched. It reports false where the group is not served.
func (r *Registrar) Prune(key string, targets []target.Target) bool {
	return r.env.followers.each(key, func(rec *reconciler) {
		for done := false; !done; { // whoever reads the list keeps it, so it is never changed
			before, all := rec.pruning.Load(), slices.Clone(targets)
			if before != nil {
				all = append(all, *before...)
			}
			done = rec.pruning.CompareAndSwap(before, &all)
		}
		rec.poke()
	})
}

// Turned returns when the supervisor's loop last turned: at least every ten seconds while Run runs, whatever AWS does. It
// is zero before Run, and has its monotonic reading: a step of the clock is no silence.
func (r *Registrar) Turned() time.Time {
	if at := r.turned.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

func (r *Registrar) beat() {
	now := time.Now()
	r.turned.Store(&now)
}

// credentialsTrouble is why calls cannot be signed, and what to change; both empty: they can.
type credentialsTrouble struct{ err, change string }

// CredentialsErr returns why the last call could not be signed, and what to change; both are empty when it could, or none
// was made.
func (r *Registrar) CredentialsErr() (problem, change string) {
	if t := r.creds.Load(); t != nil {
		return t.err, t.change
	}
	return "", ""
}

// credentials takes in whether the credentials are good. When they are again, everybody who was refused tries at once,
// as the pacer lets them: they are the whole host's.
func (r *Registrar) credentials(ce *elb.CallError) {
	now := credentialsTrouble{}
	if ce != nil {
		now = credentialsTrouble{ce.Error(), elb.Advice(ce, elb.Reference{}, elb.Facts{})}
	}
	before := r.creds.Swap(&now)
	if ce != nil || before == nil || before.err == "" {
		return
	}
	r.env.mended.now()
	r.env.followers.poke()
}

// Run works until ctx ends and returns when the last call has ended: a write in flight is awaited, no new one begins.
// It returns an error only where connect gave one that no waiting cures.
func (r *Registrar) Run(ctx context.Context) error {
	turn := time.NewTicker(5 * time.Second)
	defer turn.Stop()
	if err := r.identify(ctx, turn.C); err != nil || ctx.Err() != nil {
		return err
	}
	defer r.children.Wait()
	for {
		r.beat()
		select {
		case <-ctx.Done():
			r.remember()
			return nil
		case <-turn.C:
			r.remember()
		case <-r.wake:
			r.apply(ctx)
		case f := <-r.findings:
			r.take(ctx, f)
		case groupARN := <-r.goneARN:
			r.refind(groupARN)
		case groupARN := <-r.ended:
			r.bury(groupARN)
		}
	}
}

// identify waits for connect, turning meanwhile.
func (r *Registrar) identify(ctx context.Context, turn <-chan time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var api elb.API
	var self elb.Self
	var err error
	done := async(func() { api, self, err = r.connect(ctx) })
	for {
		r.beat()
		select {
		case <-turn:
			continue
		case <-done:
		}
		break
	}
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("learn this host's identity: %w", err)
	}
	r.self, r.env.calls = self, elb.New(api, r.calls)
	r.env.calls.OnDate(r.clock)
	entries := Reachable(r.env.ledger.Claim(self), self, r.env.log)
	for _, e := range entries {
		r.recovered[e.Facts.ARN] = append(r.recovered[e.Facts.ARN], e)
		r.env.pacer.SetServing()
	}
	r.moves.recall(entries, r.env.ledger.Serves(), self.Region)
	if n := r.env.ledger.Peers(); n > 0 {
		r.env.census.Remember(n)
		r.env.pacer.SetPeers(r.env.census.Peers())
	}
	r.env.board.edit(func() { r.env.board.head.Connected, r.env.board.head.Self = true, self })
	r.env.log.Info("registering targets as this instance", zap.String("instance_id", self.InstanceID), zap.String("region", self.Region))
	return nil
}

// apply starts and stops finders for what the configuration names, and hands everybody the new state.
func (r *Registrar) apply(ctx context.Context) {
	if l := r.learned.Swap(nil); l != nil && l.InstanceID == r.self.InstanceID && l.Region == r.self.Region &&
		(l.Account == r.self.Account || r.self.Account == "") {
		r.self = *l
		r.env.board.edit(func() { r.env.board.head.Self = *l })
	}
	d := r.desired.Load()
	if d == nil {
		return
	}
	refs := map[string]elb.Reference{}
	for _, g := range d.Groups {
		refs[g.Reference().Identity()] = g.Reference()
	}
	for key, f := range r.finders {
		if _, ok := refs[key]; !ok {
			f.cancel()
			delete(r.finders, key)
			delete(r.found, key)
			delete(r.missing, key)
		}
	}
	r.env.census.SetGroups(len(refs))
	for key, ref := range refs {
		if r.finders[key] == nil {
			r.startFinder(ctx, key, ref)
		}
	}
	r.assign(ctx, d)
	r.env.board.edit(func() { r.env.board.head.Seq, r.env.board.head.Generation = d.Seq, d.Generation })
}

func (r *Registrar) startFinder(ctx context.Context, key string, ref elb.Reference) {
	ctx, cancel := context.WithCancel(ctx)
	f := &finder{ref: ref, env: r.env, log: r.env.log, again: make(chan struct{}, 1), cancel: cancel, report: r.report}
	if region, _ := elb.PlaceOf(ref.ARN); region != "" && r.self.Region != "" && region != r.self.Region {
		cancel()
		r.finders[key] = f
		r.missing[key] = finding{ref: key, err: &elb.CallError{
			Operation: elb.OpDescribeGroups, Group: elb.Short(ref.ARN), Fault: elb.FaultMisconfigured, Code: "OtherRegion",
			Message: fmt.Sprintf("the target group is in %s, this instance in %s", region, r.self.Region),
		}}
		r.env.log.Error("target group is in another region", zap.String("reference", ref.String()), zap.String("region", region),
			zap.Error(r.missing[key].err), zap.String("change", elb.Advice(r.missing[key].err, ref, elb.Facts{})))
		return
	}
	if facts, ok := r.remembered(ref); ok {
		r.found[key], f.known = facts, true
	}
	r.finders[key] = f
	r.children.Go(func() { f.run(ctx) })
}

// remembered returns the facts of the one group that a reference can mean, where a reconciler serves it already or the
// ledger knows it: naming it in another way, or restarting the agent, costs no call. Two that answer to one name are a
// group that was deleted and its successor: AWS has to say which is which.
func (r *Registrar) remembered(ref elb.Reference) (elb.Facts, bool) {
	known := map[string]elb.Facts{}
	for groupARN, rec := range r.reconcilers {
		if in := rec.slot.Load(); in != nil && ref.Names(in.facts) {
			known[groupARN] = in.facts
		}
	}
	for groupARN, entries := range r.recovered {
		if facts := entries[0].Facts; ref.Names(facts) {
			known[groupARN] = facts
		}
	}
	if len(known) != 1 {
		return elb.Facts{}, false
	}
	for _, facts := range known {
		return facts, facts.TargetType != "" && facts.Protocol != "" // else another version wrote them: AWS knows
	}
	return elb.Facts{}, false
}

func (r *Registrar) report(ctx context.Context, f finding) {
	select {
	case r.findings <- f:
	case <-ctx.Done():
	}
}

// take takes in what a finder found out.
func (r *Registrar) take(ctx context.Context, f finding) {
	if r.finders[f.ref] == nil {
		return // its reference has left the configuration meanwhile
	}
	if f.err != nil {
		r.missing[f.ref] = f
	} else {
		delete(r.missing, f.ref)
		r.found[f.ref] = f.facts
	}
	r.assign(ctx, r.desired.Load())
}

// refind has the groups found anew whose ARN turned out not to exist.
func (r *Registrar) refind(groupARN string) {
	r.moves.gone[groupARN] = true
	for key, facts := range r.found {
		if facts.ARN == groupARN {
			r.finders[key].poke()
		}
	}
}

func (r *Registrar) startReconciler(ctx context.Context, groupARN string) {
	rec := newReconciler(groupARN, r.env, r.recovered[groupARN])
	r.reconcilers[groupARN] = rec
	delete(r.recovered, groupARN)
	r.env.followers.running(rec, true)
	r.children.Go(func() {
		rec.run(ctx)
		r.env.followers.running(rec, false)
		select {
		case r.ended <- groupARN:
		case <-ctx.Done():
		}
	})
}

// labelled reports whether a key of the configuration is what a group is called, so that the metrics are the key's.
func (r *Registrar) labelled(name string) bool {
	d := r.desired.Load()
	return d != nil && slices.ContainsFunc(d.Groups, func(g elb.Group) bool { return g.Key == name })
}

// bury forgets a reconciler that has ended. Should its group have come back into the configuration at the same
// moment, it is started anew.
func (r *Registrar) bury(groupARN string) {
	rec := r.reconcilers[groupARN]
	if rec == nil {
		return
	}
	delete(r.reconcilers, groupARN)
	r.env.board.remove(groupARN)
	if !r.labelled(elb.Short(groupARN)) {
		r.env.metrics.forget(elb.Short(groupARN))
	}
	r.env.log.Info("group has left the configuration and nothing of this host is left in it", zap.String("target_group", elb.Short(groupARN)))
	if rec.slot.Load().serves() {
		r.again()
	}
}
