package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/internal/latest"
	"berth/pkg/discovery"
	"berth/pkg/registrar"
	"berth/pkg/status"
	"berth/pkg/target"
)

// What is wrong with a container's name is said in one sentence.
func TestLookError(t *testing.T) {
	other := errors.New("the disk is on fire")
	for want, err := range map[string]error{
		`several containers' ids begin with "web"; write more of it`: fmt.Errorf("look: %w: %w", discovery.ErrNotAnswered, discovery.ErrAmbiguous),
		"there is no such container; see: docker ps -a":              fmt.Errorf("look: %w", discovery.ErrNotFound),
		"docker did not answer: not found":                           fmt.Errorf("%w: %w", discovery.ErrNotAnswered, discovery.ErrNotFound),
		"the disk is on fire":                                        other,
	} {
		if got := lookError("web", err).Error(); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}

// fakePruner has one group with some unclaimed targets.
type fakePruner struct {
	board latest.Value[registrar.Snapshot]
	asked []target.Target
	stuck bool
}

func (f *fakePruner) show(unclaimed ...target.Target) {
	f.board.Set(&registrar.Snapshot{Seq: 1, Connected: true, Groups: []registrar.GroupStatus{{
		Keys: []string{"web"}, State: registrar.StateDenied, Err: "denied", Tried: true, Seq: 1, Unclaimed: unclaimed,
	}}})
}

func (f *fakePruner) prune(key string, targets []target.Target) bool {
	f.asked = append(f.asked, targets...)
	if !f.stuck {
		f.show()
	}
	return key == "web"
}

func (f *fakePruner) view() view {
	r, changed := f.board.Get()
	d := &discovery.Snapshot{Seq: 1, Wants: map[string][]target.Want{"web": nil}}
	return view{V1: status.Of(time.Now(), status.AgentV1{}, status.Host{}, d, r), aws: changed}
}

func TestPruneTargets(t *testing.T) {
	at := func(group string, port uint16) status.GroupTargetV1 {
		return status.GroupTargetV1{Group: group, Target: target.Target{ID: "i-0123456789abcdef0", Port: port}}
	}
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakePruner{stuck: stuck}
			f.show(at("web", 9).Target, at("web", 10).Target)
			ctx, cancel := context.WithTimeout(t.Context(), controlPatrol)
			defer cancel()
			begun := time.Now()
			got := pruneTargets(ctx, f.prune, f.view, []status.GroupTargetV1{at("web", 9), at("web", 11), at("api", 9)})
			if len(f.asked) != 1 || f.asked[0] != at("web", 9).Target {
				t.Errorf("asked to prune %v; want the one that is unclaimed and was named", f.asked)
			}
			if removed, left := len(got.Removed), len(got.Left); removed != map[bool]int{false: 1}[stuck] || left != map[bool]int{false: 2, true: 3}[stuck] {
				t.Errorf("stuck %v: got %+v", stuck, got)
			}
			if took := time.Since(begun); !stuck && took > 0 {
				t.Errorf("took %v; want no time for the last requests to end", took)
			}
			var out bytes.Buffer
			_ = json.NewEncoder(&out).Encode(got)
			if stuck != strings.Contains(out.String(), "the agent goes on trying: denied") {
				t.Errorf("stuck %v: %s", stuck, out.String())
			}
		})
	}
}
