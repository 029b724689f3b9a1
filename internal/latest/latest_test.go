package latest

import (
	"testing"
)

func TestLatest(t *testing.T) {
	var l Value[int]
	got, next := l.Get()
	if got != nil {
		t.Fatalf("empty: got %d; want nil", *got)
	}
	select {
	case <-next:
		t.Fatal("the channel closed before a value was set")
	default:
	}
	one, two := 1, 2
	l.Set(&one)
	<-next
	got, next = l.Get()
	if got != &one {
		t.Errorf("got %v; want the value set", got)
	}
	if _, same := l.Get(); same != next {
		t.Error("two readers of one value wait on different channels")
	}
	l.Set(&two)
	l.Set(&one) // nobody has asked in between
	<-next
	if got, _ := l.Get(); got != &one {
		t.Errorf("got %v; want the newest", got)
	}
}
