package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"berth/test/harness"
	"berth/test/rig"
)

// lives are containers to which things happen at random.
type lives struct {
	engine *harness.Engine
	rig    *rig.Rig
	image  string
	test   string

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // guards what follows: several workers count
	done   map[string]int
	failed map[string]int // the engine was down or was just doing something else with the container
	last   error
}

// slot is a place in which one container lives after the other.
type slot struct {
	service string
	id      string // empty: none
	serial  int
	number  int
}

// workers is how many things happen at once.
const workers = 3

// services have a target group each, of the same name.
var services = []string{"shop", "cart", "admin"}

// startLives makes containers in so many places, of the services in turn, and begins.
func startLives(t *testing.T, engine *harness.Engine, r *rig.Rig, places int, seed uint64) *lives {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &lives{
		engine: engine, rig: r, image: engine.WebImage(t, harness.Image{}), test: t.Name(),
		cancel: cancel, done: map[string]int{}, failed: map[string]int{},
	}
	slots := make([]*slot, places)
	for i := range slots {
		slots[i] = &slot{service: services[i%len(services)], number: i}
		if err := l.run(ctx, slots[i], i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	for w := range workers {
		rng := rand.New(rand.NewPCG(seed, uint64(w))) //nolint:gosec // to be repeated, not to be secret
		var mine []*slot
		for i := w; i < len(slots); i += workers {
			mine = append(mine, slots[i])
		}
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.step(ctx, mine[rng.IntN(len(mine))], rng)
				pause(ctx, time.Duration(50+rng.IntN(200))*time.Millisecond)
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// end lets what is under way come to its end, and nothing more happen.
func (l *lives) end() {
	l.cancel()
	l.wg.Wait()
}

// step makes one thing happen. What is possible depends on how the container is.
func (l *lives) step(ctx context.Context, s *slot, rng *rand.Rand) {
	choice := rng.IntN(10)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if s.id == "" {
		l.count("run", l.run(ctx, s, choice < 5))
		return
	}
	docker := l.engine.Client
	answer, err := docker.ContainerInspect(ctx, s.id)
	if err != nil {
		l.count("inspect", err)
		return
	}
	var what string
	switch state := answer.State; {
	case state.Paused:
		what, err = "unpause", docker.ContainerUnpause(ctx, s.id)
	case !state.Running && choice < 5:
		what, err = "start", docker.ContainerStart(ctx, s.id, container.StartOptions{})
	case !state.Running:
		what, err = "rm", l.remove(ctx, s)
	case choice < 3:
		what, err = "stop", docker.ContainerStop(ctx, s.id, container.StopOptions{})
	case choice < 4:
		what, err = "kill", docker.ContainerKill(ctx, s.id, "KILL")
	case choice < 5:
		what, err = "kill -s HUP", docker.ContainerKill(ctx, s.id, "HUP")
	case choice < 8:
		what, err = "restart", docker.ContainerRestart(ctx, s.id, container.StopOptions{})
	case choice < 9:
		what, err = "pause", docker.ContainerPause(ctx, s.id)
	default:
		what, err = "rm -f", l.remove(ctx, s)
	}
	l.count(what, err)
}

func (l *lives) run(ctx context.Context, s *slot, returns bool) error {
	s.serial++
	name := fmt.Sprintf("%s-%d-%d", s.service, s.number, s.serial)
	host := &container.HostConfig{PublishAllPorts: true}
	if returns {
		host.RestartPolicy.Name = "always"
	}
	timeout := 2
	labels := l.rig.In(s.service)
	labels[harness.LabelOwner], labels[harness.LabelTest] = harness.Owner(), l.test
	made, err := l.engine.Client.ContainerCreate(ctx, &container.Config{
		Image: l.image, Labels: labels, StopTimeout: &timeout, Cmd: []string{"--drain=300ms"},
		Env: []string{"WEB_SERVICE=" + s.service, "WEB_NAME=" + name},
	}, host, nil, nil, name)
	if err != nil {
		return err
	}
	s.id = made.ID
	return l.engine.Client.ContainerStart(ctx, s.id, container.StartOptions{})
}

func (l *lives) remove(ctx context.Context, s *slot) error {
	err := l.engine.Client.ContainerRemove(ctx, s.id, container.RemoveOptions{Force: true})
	if err == nil {
		s.id = ""
	}
	return err
}

func (l *lives) count(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed[what]++
		l.last = err
		return
	}
	l.done[what]++
}
