package agent

import (
	"testing"

	"berth/pkg/config"
	"berth/pkg/registrar"
)

func TestAllGroupsTried(t *testing.T) {
	web, dns := config.Group{Key: "web"}, config.Group{Key: "dns"}
	looked := registrar.GroupStatus{ARN: "arn:web", Keys: []string{"web"}, State: registrar.StateOK, Tried: true, Seq: 1}
	sought := registrar.GroupStatus{Name: "web", Keys: []string{"web"}, State: registrar.StateWaiting}
	unheard := looked
	unheard.Seq = 0
	left, leaving := registrar.GroupStatus{ARN: "arn:api", Tried: true, Seq: 1}, registrar.GroupStatus{ARN: "arn:api"}
	for name, tt := range map[string]struct {
		groups []config.Group
		status []registrar.GroupStatus
		want   bool
	}{
		"no group":                     {nil, nil, true},
		"looked at":                    {[]config.Group{web}, []registrar.GroupStatus{looked}, true},
		"not on the board":             {[]config.Group{web, dns}, []registrar.GroupStatus{looked}, false},
		"still looked for":             {[]config.Group{web}, []registrar.GroupStatus{sought}, false},
		"found, and still looked for":  {[]config.Group{web}, []registrar.GroupStatus{sought, looked}, false},
		"found, looked for before":     {[]config.Group{web}, []registrar.GroupStatus{looked, sought}, false},
		"looked at before any want":    {[]config.Group{web}, []registrar.GroupStatus{unheard}, false},
		"another's is no matter of it": {[]config.Group{dns}, []registrar.GroupStatus{{Keys: []string{"dns"}, Tried: true, Seq: 1}, sought}, true},
		"left the configuration":       {[]config.Group{web}, []registrar.GroupStatus{looked, left}, true},
		"left it, and not looked at":   {[]config.Group{web}, []registrar.GroupStatus{looked, leaving}, false},
	} {
		if got := allGroupsTried(tt.groups, &registrar.Snapshot{Groups: tt.status}, 1); got != tt.want {
			t.Errorf("%s: got %v; want %v", name, got, tt.want)
		}
	}
}
