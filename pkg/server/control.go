package server

import (
	"encoding/json"
	"net/http"
	"time"
)

// WriteJSON answers a request with v.
func WriteJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "the answer cannot be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
}

// WriteError answers a request with an ErrorV1.
func WriteError(w http.ResponseWriter, code int, message string) { writeError(w, code, message) }

// Extend gives an answer more time than others have: until d from now, 0 for as long as it takes. Reading counts as well:
// net/http ends a request whose connection has passed its read deadline, also when it has been read.
func Extend(w http.ResponseWriter, d time.Duration) {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(until) // where a deadline cannot be set there is no connection to cut
	_ = control.SetReadDeadline(until)
}
