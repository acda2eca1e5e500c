package comfy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestHistoryIsJudgedByMessages(t *testing.T) {
	const start = `["execution_start",{"timestamp":1000}]`
	fail := `["execution_error",{"node_id":3,"node_type":"X","exception_message":"boom","exception_type":"ValueError","timestamp":2500}]`
	blocked := `["execution_error",{"node_id":"3","exception_type":"ExecutionBlocked"}]`
	for _, tc := range []struct {
		name, status, messages       string
		success, interrupted, failed bool
	}{
		{"success", "success", start + `,["execution_success",{"timestamp":2500}]`, true, false, false},
		{"error", "error", start + "," + fail, false, false, true},
		{"status lies about a cycle", "success", start + "," + fail, false, false, true},
		{"interrupted", "error", start + `,["execution_interrupted",{"timestamp":2500}]`, false, true, false},
		{"blocked is no end", "success", start + "," + blocked + `,["execution_success",{"timestamp":2500}]`, true, false, false},
		{"no messages, its word counts", "success", "", true, false, false},
		{"no messages, error", "error", "", false, false, false},
		{"started only, says success", "success", start, true, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := `{"prompt":[1,"p",{},{},["9"]],"outputs":{},"status":{"status_str":"` + tc.status + `","completed":true,"messages":[` + tc.messages + `]}}`
			e, err := parseHistory("p", json.RawMessage(raw))
			if err != nil {
				t.Fatal(err)
			}
			if e.Success != tc.success || e.Interrupted != tc.interrupted || (e.Error != nil) != tc.failed {
				t.Errorf("success %v, interrupted %v, error %+v", e.Success, e.Interrupted, e.Error)
			}
			if tc.failed && (e.Error.Node != "3" || e.Ended.Sub(e.Started) != 1500*time.Millisecond) {
				t.Errorf("got %+v, %v–%v", e.Error, e.Started, e.Ended)
			}
		})
	}
}

func TestHistoryOddities(t *testing.T) {
	for _, raw := range []string{`{}`, `{"outputs":null,"status":null,"prompt":null}`} {
		e, err := parseHistory("p", json.RawMessage(raw))
		if err != nil || string(e.Outputs) != "{}" || e.Success {
			t.Errorf("%s: %+v, %v", raw, e, err)
		}
	}
	if _, err := parseHistory("p", json.RawMessage(`{"status":{"messages":[5]}}`)); err == nil {
		t.Error("a message that is no pair was read")
	}
}

func TestRecentKeepsTheOrder(t *testing.T) {
	s := newServer(t)
	s.answer("GET /history", 200, []byte(`{"z":{"outputs":{"1":{"n":[NaN]}}},"a":{"status":{"status_str":"success"}}}`))
	got, err := testClient(t, s.URL).Recent(within(t, 5*time.Second), 2)
	if err != nil || len(got) != 2 || got[0].PromptID != "z" || !got[1].Success {
		t.Errorf("%+v, %v", got, err)
	}
	if !strings.HasPrefix(s.last(), "GET /history?max_items=2") {
		t.Errorf("asked %s", s.last())
	}
}
