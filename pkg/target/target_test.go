package target

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestTarget_String(t *testing.T) {
	for want, in := range map[string]Target{
		"i-0123456789abcdef0:32768": {"i-0123456789abcdef0", 32768},
		"[fd00::1]:80":              {"fd00::1", 80},
	} {
		if got := in.String(); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]uint16{
		"1": 1, "8080": 8080, "65535": 65535, "": 0, "0": 0, "65536": 0, "-1": 0, "+1": 0, " 1": 0, "1e3": 0, "0x10": 0, "http": 0,
	} {
		got, err := ParsePort(in)
		if got != want || (err == nil) != (want != 0) || err != nil && !errors.Is(err, ErrPort) {
			t.Errorf("ParsePort(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, ok := range map[int]bool{-1: false, 0: false, 1: true, 65535: true, 65536: false, 1 << 40: false} {
		if got, err := CheckPort(in); (err == nil) != ok || ok && int(got) != in {
			t.Errorf("CheckPort(%d) = %d, %v", in, got, err)
		}
	}
}

func TestParsePortProto(t *testing.T) {
	for in, want := range map[string]string{
		"8080": "8080/tcp", "53/udp": "53/udp", "53/UDP": "53/udp", "9/sctp": "9/sctp",
		"80/": "", "/tcp": "", "80/tcp/tcp": "", "80/icmp": "", "tcp": "", "": "",
	} {
		got, err := ParsePortProto(in)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("ParsePortProto(%q) = %v, %v; want %q", in, got, err, want)
		}
	}
}

// TestProtocol_text: what is written is read again, and nothing else.
func TestProtocol_text(t *testing.T) {
	for _, p := range []Protocol{TCP, UDP, SCTP} {
		b, err := json.Marshal(map[string]Protocol{"p": p})
		if err != nil {
			t.Fatal(err)
		}
		var back map[string]Protocol
		if err := json.Unmarshal(b, &back); err != nil || back["p"] != p {
			t.Errorf("%v became %s became %v, %v", p, b, back["p"], err)
		}
	}
	var p Protocol
	if err := p.UnmarshalText([]byte("icmp")); err == nil {
		t.Error("icmp was read")
	}
	if got := Protocol(9).String(); got != "protocol(9)" {
		t.Errorf("an unknown protocol is %q", got)
	}
}

func TestRun(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	a := Run{ID: "0123456789abcdef", Name: "web-1", StartedAt: began}
	renamed := Run{ID: a.ID, Name: "web-2", StartedAt: began.In(time.FixedZone("", 3600))}
	again := Run{ID: a.ID, Name: "web-1", StartedAt: began.Add(time.Second)}
	if !a.Same(renamed) || a.Same(again) {
		t.Error("a run is an id and a start, whatever the name")
	}
	if a.Short() != "0123456789ab" || (Run{ID: "ab"}).Short() != "ab" || a.String() != "web-1" || (Run{ID: a.ID}).String() != a.Short() {
		t.Errorf("got %q, %q", a.Short(), Run{ID: a.ID})
	}
	if a.Compare(renamed) >= 0 || a.Compare(again) >= 0 || a.Compare(a) != 0 {
		t.Error("runs are ordered by name, id and start")
	}
}

func genSet() *rapid.Generator[Set] {
	return rapid.Custom(func(t *rapid.T) Set {
		s := Set{}
		for _, p := range rapid.SliceOf(rapid.Uint16Range(1, 8)).Draw(t, "ports") {
			s.Add(Target{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id"), p}, Want{Port: p})
		}
		return s
	})
}

// TestSet_arithmetic: the laws of sets, and an order that does not depend on the map's.
func TestSet_arithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genSet().Draw(t, "a"), genSet().Draw(t, "b")
		both := a.Union(b)
		for _, s := range []Set{a, b} {
			if left := s.Minus(both); len(left) != 0 {
				t.Fatalf("the union lacks %v", left)
			}
		}
		if !both.SameTargets(b.Union(a)) || a.SameTargets(b) != (len(a.Minus(b)) == 0 && len(b.Minus(a)) == 0) {
			t.Fatal("same targets is not the same targets")
		}
		wants := 0
		for x, w := range both {
			if len(w) != len(a[x])+len(b[x]) {
				t.Fatalf("%v is wanted for %d reasons; want %d", x, len(w), len(a[x])+len(b[x]))
			}
			wants += len(w)
		}
		minus := a.Minus(b)
		for _, x := range minus {
			if _, in := b[x]; in {
				t.Fatalf("%v is in both", x)
			}
		}
		if len(minus)+len(b) != len(both) || !slices.IsSortedFunc(minus, Target.Compare) || !slices.IsSortedFunc(both.Sorted(), Target.Compare) {
			t.Fatalf("a - b = %v", minus)
		}
	})
}

func TestWant_Compare(t *testing.T) {
	want := []Want{
		{Group: "api", Port: 1},
		{Group: "web", Run: Run{Name: "a"}, Port: 1},
		{Group: "web", Run: Run{Name: "a"}, Port: 1, Protocol: UDP},
		{Group: "web", Run: Run{Name: "a"}, Port: 2},
		{Group: "web", Run: Run{Name: "b"}},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Want.Compare)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Want) bool { return a == b })); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}
