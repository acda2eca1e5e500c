package workflow

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"easel/backend"
)

var pngSignature = []byte("\x89PNG\r\n\x1a\n")

// errStop ends a walk over chunks.
var errStop = errors.New("stop")

func readPNG(r io.Reader) (Doc, error) {
	prompt, workflow, err := FromPNG(r)
	if err != nil {
		return Doc{}, err
	}
	if prompt == nil {
		if workflow != nil {
			return Doc{}, formatError("ui", "this PNG carries a workflow in UI format only, and a worker takes the API format",
				"open it in ComfyUI's web page and choose Workflow > Export (API); converting it here comes with `easel workflows`")
		}
		return Doc{}, formatError("png", "this PNG carries no workflow: it was not made by ComfyUI, or its metadata was removed on the way",
			"pictures lose it when they are edited, or sent through a messenger")
	}
	doc, err := readJSON(prompt, "png")
	if err != nil {
		f := backend.FailureOf(err)
		return Doc{}, &FormatError{Format: "png", Failure: backend.Fail(f.Kind, "the prompt in this PNG: "+f.Message, f.Hint)}
	}
	if kindOf(workflow) == '{' {
		doc.Workflow = workflow
	}
	return doc, nil
}

// FromPNG reads the two texts that ComfyUI writes into a PNG: the prompt (API
// format) and the workflow (UI format). One that is not there is nil. They may
// hold bare NaN and are not checked otherwise. An error is a *FormatError.
func FromPNG(r io.Reader) (prompt, workflow json.RawMessage, err error) {
	err = pngTexts(r, func(keyword string, open func() (string, error)) error {
		if keyword != "prompt" && keyword != "workflow" {
			return nil
		}
		s, err := open()
		if err != nil {
			return err
		}
		if keyword == "prompt" && prompt == nil {
			prompt = json.RawMessage(s)
		}
		if keyword == "workflow" && workflow == nil {
			workflow = json.RawMessage(s)
		}
		if prompt != nil && workflow != nil {
			return errStop
		}
		return nil
	})
	return prompt, workflow, err
}

// PNGText is the text that a PNG keeps under a keyword, "" when there is none.
// An error is a *FormatError.
func PNGText(r io.Reader, keyword string) (string, error) {
	found := ""
	err := pngTexts(r, func(name string, open func() (string, error)) (err error) {
		if name != keyword {
			return nil
		}
		if found, err = open(); err != nil {
			return err
		}
		return errStop
	})
	return found, err
}

// pngTexts walks over the text chunks of a PNG: tEXt, zTXt, iTXt, and the comf
// chunk that ComfyUI puts into animated ones. Pixels are passed over unread. A
// file that is cut off in its pixels ends the walk without an error.
func pngTexts(r io.Reader, fn func(keyword string, open func() (string, error)) error) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || !bytes.Equal(head[:], pngSignature) {
		return formatError("", "this is no PNG", "")
	}
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil // a cut-off file has no more texts
		}
		size, kind := int64(binary.BigEndian.Uint32(head[:4])), string(head[4:])
		switch kind {
		case "IEND":
			return nil
		case "tEXt", "zTXt", "iTXt", "comf":
		default:
			if _, err := io.CopyN(io.Discard, r, size+4); err != nil {
				return nil // as above
			}
			continue
		}
		data, err := pngChunk(r, head[4:], size)
		if err != nil {
			return err
		}
		keyword, rest, _ := bytes.Cut(data, []byte{0})
		err = fn(string(keyword), func() (string, error) { return pngText(kind, rest) })
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pngChunk reads the data of one chunk and compares its checksum.
func pngChunk(r io.Reader, kind []byte, size int64) ([]byte, error) {
	if size > MaxSize {
		e := formatError("png", fmt.Sprintf("a text of this PNG is larger than %d MiB", MaxSize>>20), "")
		e.Failure.Kind = backend.FailTooLarge
		return nil, e
	}
	var data bytes.Buffer // grows as bytes arrive: the size is only claimed
	n, _ := io.CopyN(&data, r, size+4)
	if n < size+4 {
		return nil, formatError("png", "this PNG is cut off in its metadata", "")
	}
	b := data.Bytes()
	sum := crc32.Update(crc32.ChecksumIEEE(kind), crc32.IEEETable, b[:size])
	if sum != binary.BigEndian.Uint32(b[size:]) {
		return nil, formatError("png", "this PNG is damaged: a checksum in its metadata is wrong", "")
	}
	return b[:size], nil
}

// pngText decodes what follows the keyword of a text chunk.
func pngText(kind string, b []byte) (string, error) {
	damaged := formatError("png", "this PNG is damaged: a text in its metadata cannot be read", "")
	switch kind {
	case "comf":
		return string(b), nil
	case "tEXt":
		return latin1(b), nil
	case "zTXt":
		if len(b) < 1 || b[0] != 0 {
			return "", damaged
		}
		plain, err := inflate(b[1:])
		return latin1(plain), err
	}
	// iTXt: compressed?, method, language, 0, translated keyword, 0, text.
	if len(b) < 2 {
		return "", damaged
	}
	compressed := b[0] == 1
	_, rest, ok := bytes.Cut(b[2:], []byte{0})
	_, rest, more := bytes.Cut(rest, []byte{0})
	if !ok || !more {
		return "", damaged
	}
	if !compressed {
		return string(rest), nil
	}
	plain, err := inflate(rest)
	return string(plain), err
}

// latin1 turns ISO 8859-1 into UTF-8. Some writers put UTF-8 there against the
// standard: what is valid UTF-8 is left as it is.
func latin1(b []byte) string {
	ascii := true
	for _, c := range b {
		ascii = ascii && c < 0x80
	}
	if ascii || strings.ToValidUTF8(string(b), "") == string(b) {
		return string(b)
	}
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

func inflate(b []byte) ([]byte, error) {
	damaged := formatError("png", "this PNG is damaged: a text in its metadata cannot be unpacked", "")
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, damaged
	}
	defer z.Close()
	plain, err := io.ReadAll(io.LimitReader(z, MaxSize+1))
	if err != nil {
		return nil, damaged
	}
	if len(plain) > MaxSize {
		e := formatError("png", fmt.Sprintf("a text of this PNG is larger than %d MiB", MaxSize>>20), "")
		e.Failure.Kind = backend.FailTooLarge
		return nil, e
	}
	return plain, nil
}
