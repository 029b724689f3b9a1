package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForm_lists(t *testing.T) {
	f, err := ParseForm("T.member.10.Id=ten&T.member.2.Id=two&T.member.2.Port=2&T.member.1.Id=one&U.member.1.Id=other&N.member.2=b&N.member.1=a&N.member.0=x")
	if err != nil {
		t.Fatal(err)
	}
	members, err := f.List("T")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range members {
		got = append(got, m.Text("Id")+m.Text("Port"))
	}
	if diff := cmp.Diff([]string{"one", "two2", "ten"}, got); diff != "" {
		t.Errorf("members in the order of their numbers, whatever the gaps (-want +got):\n%s", diff)
	}
	if _, err := f.Texts("N"); err == nil {
		t.Error("member 0 was accepted")
	}
	if empty, err := f.List("None"); err != nil || len(empty) != 0 {
		t.Errorf("no such list: got %v, %v", empty, err)
	}
}
