package comfy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseText(t *testing.T) {
	node := "7"
	for _, tc := range []struct {
		name, in string
		want     Message
	}{
		{"status with sid", `{"type":"status","data":{"status":{"exec_info":{"queue_remaining":3}},"sid":"a"}}`, Status{Remaining: 3, SID: "a"}},
		{"node ids as numbers", `{"type":"executing","data":{"node":7,"prompt_id":"p"}}`, Executing{PromptID: "p", Node: &node, Display: "7"}},
		{"the end of a prompt", `{"type":"executing","data":{"node":null,"prompt_id":"p"}}`, Executing{PromptID: "p"}},
		{"progress with NaN", `{"type":"progress","data":{"value":NaN,"max":20,"prompt_id":"p","node":"3"}}`, Progress{PromptID: "p", Node: "3", Max: 20}},
		{"cached", `{"type":"execution_cached","data":{"nodes":["1",2],"prompt_id":"p","timestamp":1795346050544}}`, ExecutionCached{PromptID: "p", Nodes: []string{"1", "2"}, At: time.UnixMilli(1795346050544).UTC()}},
		{"executed with null", `{"type":"executed","data":{"node":"3","display_node":"3","output":null,"prompt_id":"p"}}`, Executed{PromptID: "p", Node: "3", Display: "3", Output: json.RawMessage("null")}},
		{"unknown type", `{"type":"crystools.monitor","data":{"cpu":NaN}}`, Other{Type: "crystools.monitor", Raw: []byte(`{"cpu":null}`)}},
		{"known type of another shape", `{"type":"progress","data":[1]}`, Other{Type: "progress", Raw: []byte(`[1]`)}},
		{"not JSON", `{"type":`, Other{Type: "unreadable", Raw: []byte(`{"type":`)}},
		{"no data", `{"type":"status"}`, Other{Type: "status"}},
		{"data is empty", `{"type":"status","data":{}}`, Status{}},
		{"a list", `[]`, Other{Type: "unreadable", Raw: []byte(`[]`)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ParseText([]byte(tc.in)); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %#v\nwant %#v", got, tc.want)
			}
		})
	}
}

func TestExecutionErrorKinds(t *testing.T) {
	oom := ExecutionError{Type: "torch.cuda.OutOfMemoryError", Message: "CUDA out of memory."}
	if !oom.OutOfMemory() || oom.CUDAFault() {
		t.Error("torch.cuda.OutOfMemoryError is an OOM and no fault")
	}
	accel := ExecutionError{Type: "torch.AcceleratorError", Message: "CUDA error: out of memory"}
	if !accel.OutOfMemory() || accel.CUDAFault() {
		t.Error("an AcceleratorError out of memory is an OOM and no fault")
	}
	fault := ExecutionError{Type: "RuntimeError", Message: "CUDA error: an illegal memory access was encountered"}
	if fault.OutOfMemory() || !fault.CUDAFault() {
		t.Error("an illegal access is a fault and no OOM")
	}
	host := ExecutionError{Type: "RuntimeError", Message: "[enforce fail at alloc_cpu.cpp:66] DefaultCPUAllocator: can't allocate memory"}
	if !host.HostOutOfMemory() || host.OutOfMemory() {
		t.Error("the CPU allocator's failure is the host's memory")
	}
}

// bin makes a binary message of numbers and bytes.
func bin(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case string:
			b = append(b, v...)
		}
	}
	return b
}

const pngMagic = "\x89PNG\r\n\x1a\n"

func TestParseBinary(t *testing.T) {
	meta := `{"node_id":"5.0.0.1","prompt_id":"p","display_node_id":"5","real_node_id":"5","image_type":"image/png","x":NaN}`
	for _, tc := range []struct {
		name     string
		in       []byte
		textMeta bool
		want     Message
	}{
		{"JPEG", bin(1, 1, "\xff\xd8\xff\xe0x"), false, PreviewImage{MIME: "image/jpeg", Data: []byte("\xff\xd8\xff\xe0x")}},
		{"PNG told as JPEG", bin(1, 1, pngMagic), false, PreviewImage{MIME: "image/png", Data: []byte(pngMagic)}},
		{"with metadata", bin(4, len(meta), meta, pngMagic), false, PreviewImage{PromptID: "p", Node: "5", Display: "5", MIME: "image/png", Data: []byte(pngMagic)}},
		{"text", bin(3, 1, "2", "step \x1b[31m1/3"), false, Text{Node: "2", Text: "step 1/3"}},
		{"text with its prompt", bin(3, 1, "p", 1, "2", "hello"), true, Text{PromptID: "p", Node: "2", Text: "hello"}},
		{"unknown event", bin(77, "abc"), false, Other{Type: "binary 77", Raw: bin(77, "abc"), Binary: true}},
		{"never on the wire", bin(2, "abc"), false, Other{Type: "binary 2", Raw: bin(2, "abc"), Binary: true}},
		{"length beyond the end", bin(4, 1<<31, "{}"), false, Other{Type: "binary 4", Raw: bin(4, 1<<31, "{}"), Binary: true}},
		{"too short", []byte{0, 0}, false, Other{Type: "binary", Raw: []byte{0, 0}, Binary: true}},
		{"empty", nil, false, Other{Type: "binary", Binary: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ParseBinary(tc.in, tc.textMeta); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %#v\nwant %#v", got, tc.want)
			}
		})
	}
}

func FuzzParseBinary(f *testing.F) {
	f.Add(bin(1, 1, "\xff\xd8\xff"), false)
	f.Add(bin(3, 1, "p", 1, "2", "hello"), true)
	f.Add(bin(4, 2, "{}", pngMagic), false)
	f.Add(bin(4, 0xffffffff), false)
	f.Fuzz(func(t *testing.T, b []byte, textMeta bool) {
		before := bytes.Clone(b)
		m := ParseBinary(b, textMeta)
		if m == nil || m.Kind() == "" {
			t.Fatal("no message")
		}
		if p, ok := m.(PreviewImage); ok && !strings.HasPrefix(p.MIME, "image/") {
			t.Fatalf("a preview of type %q", p.MIME)
		}
		for i := range b {
			b[i] ^= 0xff
		}
		if p, ok := m.(PreviewImage); ok && len(p.Data) > 0 && !bytes.HasSuffix(before, p.Data) {
			t.Fatal("the message shares memory with the buffer")
		}
	})
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte(`{"type":"progress","data":{"value":NaN}}`))
	f.Add([]byte(`{"type":"progress_state","data":{"nodes":{"1":{"value":1}}}}`))
	f.Add([]byte(`{"type":"execution_error","data":{"traceback":["x"],"current_inputs":[]}}`))
	f.Add([]byte(`{"type":7,"data":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ParseText(b) == nil {
			t.Fatal("no message")
		}
	})
}
