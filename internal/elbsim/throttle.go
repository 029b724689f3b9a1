package elbsim

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

// DefaultThrottling are AWS's buckets for ELBv2.
func DefaultThrottling() *Throttling {
	return &Throttling{Register: Bucket{20, 4}, Describe: Bucket{40, 10}, All: Bucket{40, 10}}
}

type bucket uint8

const (
	bucketNone bucket = iota // of another service
	bucketRegister
	bucketDescribe
	bucketAll
)

// buckets are the buckets as they are now. A nil one lets everything through.
type buckets struct {
	byKind        [bucketAll + 1]level
	rejectedTakes bool
	code          string
}

type level struct {
	Bucket
	tokens float64
	at     time.Time
}

func newBuckets(t *Throttling, now time.Time) *buckets {
	if t == nil {
		return nil
	}
	b := &buckets{rejectedTakes: t.RejectedTakes, code: cmp.Or(t.Code, "Throttling")}
	for kind, spec := range map[bucket]Bucket{bucketRegister: t.Register, bucketDescribe: t.Describe, bucketAll: t.All} {
		b.byKind[kind] = level{spec, spec.Capacity, now}
	}
	return b
}

// take reports whether a call of that kind is let through.
func (b *buckets) take(kind bucket, now time.Time) bool {
	if b == nil || kind == bucketNone {
		return true
	}
	all, own := &b.byKind[bucketAll], &b.byKind[kind]
	all.refill(now)
	own.refill(now)
	if own.tokens < 1 {
		if b.rejectedTakes && all != own && all.tokens >= 1 {
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
