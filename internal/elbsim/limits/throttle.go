// Package limits is the token buckets by which AWS throttles calls, for one account and region.
package limits

import (
	"cmp"
	"time"
)

// Throttling are the account's token buckets, shared by all clients of a Sim. Every ELB call takes from All, and from
// the bucket of its kind as well.
type Throttling struct {
	Register Bucket // RegisterTargets and DeregisterTargets
	Describe Bucket // Describe*
	All      Bucket // all ELB actions together
	// RejectedTakes makes a call that the bucket of its kind rejects take from All nevertheless. AWS does not say.
	RejectedTakes bool
	// Code is the error code of rejected calls. Empty: Throttling.
	Code string
}

// Bucket holds at most Capacity tokens and gets PerSecond new ones each second.
type Bucket struct {
	Capacity  float64
	PerSecond float64
}

// Default are AWS's buckets for ELBv2.
func Default() *Throttling {
	return &Throttling{Register: Bucket{20, 4}, Describe: Bucket{40, 10}, All: Bucket{40, 10}}
}

// Kind says which bucket a call takes from, beside the one of all calls.
type Kind uint8

// The kinds.
const (
	None Kind = iota // of another service
	Register
	Describe
	All
)

// Buckets are the buckets as they are now. A nil one lets everything through.
type Buckets struct {
	byKind        [All + 1]level
	RejectedTakes bool
	Code          string
}

type level struct {
	Bucket
	tokens float64
	at     time.Time
}

// New returns full buckets; nil where t is: no limits.
func New(t *Throttling, now time.Time) *Buckets {
	if t == nil {
		return nil
	}
	b := &Buckets{RejectedTakes: t.RejectedTakes, Code: cmp.Or(t.Code, "Throttling")}
	for kind, spec := range map[Kind]Bucket{Register: t.Register, Describe: t.Describe, All: t.All} {
		b.byKind[kind] = level{spec, spec.Capacity, now}
	}
	return b
}

// Take reports whether a call of that kind is let through.
func (b *Buckets) Take(kind Kind, now time.Time) bool {
	if b == nil || kind == None {
		return true
	}
	all, own := &b.byKind[All], &b.byKind[kind]
	all.refill(now)
	own.refill(now)
	if own.tokens < 1 {
		if b.RejectedTakes && all != own && all.tokens >= 1 {
			all.tokens--
		}
		return false
	}
	if all.tokens < 1 {
		return false
	}
	own.tokens--
	if all != own {
		all.tokens--
	}
	return true
}

func (l *level) refill(now time.Time) {
	l.tokens = min(l.Capacity, l.tokens+now.Sub(l.at).Seconds()*l.PerSecond)
	l.at = now
}
