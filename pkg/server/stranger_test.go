package server

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"berth/internal/elbsim"
	"berth/pkg/registrar"
	"berth/pkg/registrar/elb"
	"berth/pkg/registrar/ledger"
	"berth/pkg/status/statustest"
	"berth/pkg/target"
)

// To follow a group costs calls of AWS, which all hosts of an account share. Whoever may use the control socket may ask for
// it; the status port answers to every process and every page in a browser of the host, and follows nothing.
func TestHandlers_followIsTheControlSockets(t *testing.T) {
	var a agent
	a.well()
	s := unserved(t, &a)
	for _, path := range []string{"/v1/status?follow=web", "/v1/status?follow=*"} {
		get(t, s.StatusHandler(), path)
		if diff := cmp.Diff(map[string]int{}, a.followed()); diff != "" {
			t.Errorf("%s on the status port: followed (-want +got):\n%s", path, diff)
		}
	}
	get(t, s.controlHandler(), "/v1/status?follow=web")
	if diff := cmp.Diff(map[string]int{"web": 1}, a.followed()); diff != "" {
		t.Errorf("on the control socket: followed (-want +got):\n%s", diff)
	}
}

// A group with an unhealthy target is looked at as often while a stranger asks, every five seconds, as while nobody does.
func TestHandlers_strangersMakeNoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := elbsim.New(elbsim.Config{Region: "eu-central-1", Account: "123456789012", Instance: elbsim.Instance{ID: statustest.Instance}})
		if _, err := sim.AddGroup(elbsim.Group{Name: "web"}); err != nil {
			t.Fatal(err)
		}
		connect := func(ctx context.Context) (elb.API, elb.Self, error) {
			return elb.NewAPI(aws.Config{
				Region: "eu-central-1", HTTPClient: sim.HTTPClient(),
				Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider("AKIDTEST", "secret", "")),
			}), elb.Self{InstanceID: statustest.Instance, Region: "eu-central-1", Account: "123456789012"}, ctx.Err()
		}
		reg := registrar.New(connect, ledger.NewMemory(), registrar.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- reg.Run(ctx) }()
		reg.Apply(registrar.Desired{
			Seq: 1, Groups: []elb.Group{{Key: "web", Name: "web"}},
			Wants: map[string][]target.Want{"web": {statustest.Want("web", "web-1", 8080, 32768)}},
		})
		var a agent
		a.well()
		cfg := a.config()
		cfg.Registrar, cfg.Follow = reg.Snapshot, reg.Follow
		s, err := Listen(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if err := sim.SetHealth("web", statustest.Target(32768), elbsim.Health{State: elbsim.StateUnhealthy, Reason: "Target.Timeout"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		looks := func(ask func()) int {
			before := len(sim.CallsOf("DescribeTargetHealth"))
			for begun := time.Now(); time.Since(begun) < time.Hour; time.Sleep(5 * time.Second) {
				ask()
			}
			return len(sim.CallsOf("DescribeTargetHealth")) - before
		}
		alone := looks(func() {})
		asked := looks(func() { get(t, s.StatusHandler(), "/v1/status?follow=*") })
		if asked > 2*alone {
			t.Errorf("%d looks in an hour of a stranger's questions, %d without; want no more than chance makes", asked, alone)
		}
		s.Close()
		s.socket.follower.close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A page of another site gets nothing of this host: neither an answer nor a slot.
func TestHandlers_otherSitesAreRefused(t *testing.T) {
	var a agent
	a.well()
	s := unserved(t, &a)
	for name, header := range map[string][]string{
		"by its fetch metadata": {"Sec-Fetch-Site", "cross-site"},
		"by its origin":         {"Origin", "https://elsewhere.example"},
		"of another port":       {"Sec-Fetch-Site", "same-site"},
		"of no origin":          {"Origin", "null"},
	} {
		if got := get(t, localOnly("127.0.0.1:9798", s.StatusHandler()), "http://127.0.0.1:9798/v1/status", header...); got.Code != http.StatusForbidden {
			t.Errorf("%s: got %d; want %d", name, got.Code, http.StatusForbidden)
		}
	}
	for name, header := range map[string][]string{
		"its own page":  {"Sec-Fetch-Site", "same-origin", "Origin", "http://127.0.0.1:9798"},
		"typed by hand": {"Sec-Fetch-Site", "none"},
		"a command":     {},
	} {
		if got := get(t, localOnly("127.0.0.1:9798", s.StatusHandler()), "http://127.0.0.1:9798/v1/status", header...); got.Code != http.StatusOK {
			t.Errorf("%s: got %d; want %d", name, got.Code, http.StatusOK)
		}
	}
}

// Strangers who wait for a change, as many as may, leave room for the commands on the control socket.
func TestHandlers_longPollsOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a agent
		a.well()
		s := bubbled(&a)
		ctx, cancel := context.WithCancel(t.Context())
		revision := s.Status().Revision
		path := "/v1/status?after=" + revision
		for range cap(s.tcp.polls) {
			ask(ctx, s.StatusHandler(), path)
		}
		synctest.Wait()
		answer := make(chan int, 1)
		go func() { answer <- get(t, s.controlHandler(), path+"&timeout=1s").Code }()
		time.Sleep(2 * time.Second)
		if code := <-answer; code != http.StatusOK {
			t.Errorf("the control socket answered %d; want %d", code, http.StatusOK)
		}
		cancel()
		synctest.Wait()
	})
}
