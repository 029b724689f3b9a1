// Package contract pins what machines read: files that one version writes and another reads, JSON that scripts parse,
// names that dashboards use, exit codes that units act on. It drives the berth program as built, between elbsim and a
// small Docker engine of its own on a unix socket, so that it knows the program's outside alone: packages may move
// without a line changing here, wire_test.go excepted.
//
//	ledger_test.go    the ledger's file, written and read             testdata/ledger/
//	drains_test.go    drains.json, written and read                   testdata/drains/
//	json_test.go      what each command prints with --json            testdata/json/
//	control_test.go   what HTTP answers: /v1, /readyz, the control
//	                  socket; what the commands send to it            testdata/http/
//	wire_test.go      every field of the /v1 types, both ways         testdata/wire/
//	metrics_test.go   the families and labels of /metrics             testdata/metrics.txt
//	exit_test.go      the exit code of every documented case          (in the test)
//	help_test.go      flags and --help of every command               testdata/flags.txt, testdata/help/
//
// What differs between two runs (times, process ids, this boot's id) is replaced by tokens such as <TIME>.
//
//	go test ./test/contract -update
//
// writes the golden files anew. A change of one is a change of the contract: it belongs in CHANGELOG.md. Files under
// testdata/help are prose and may change at will; flags.txt, beside them, may not.
package contract
