package registrar

import "testing"

// encodeLedger writes a file of some schema with one line for each commit.
func encodeLedger(t testing.TB, schema int, commits ...[]Entry) []byte {
	t.Helper()
	b, err := appendHeader(nil, ledgerHeader{Schema: schema, InstanceID: ledgerInstance, BootID: "boot-1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, entries := range commits {
		var changes []change
		for _, e := range entries {
			r := &record{Entry: e.normal(), instance: ledgerInstance}
			changes = append(changes, change{r.key(), r})
		}
		if b, err = appendCommit(b, changes); err != nil {
			t.Fatal(err)
		}
	}
	return b
}
