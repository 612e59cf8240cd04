// Esc-evaluator is the lab cloud's evaluator of ESC environments: the vendor's own evaluator (sdk/v3, package esc/eval) behind
// standard input and output.
//
// One JSON document a line. The first request brings the key; afterwards each request gets exactly one answer, before which the evaluator may
// ask back for environments and for the outputs of stacks. It ends when standard input does. It writes no secret anywhere but into answers.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// request is what the cloud wants done with one definition.
type request struct {
	// Op is start, check, open, encrypt or decrypt.
	Op string `json:"op"`
	// Key belongs to start: 32 bytes of AES key, base64.
	Key string `json:"key"`
	// Name of the environment, project/name, or <yaml>.
	Name       string `json:"name"`
	Definition string `json:"definition"`
	// ShowSecrets belongs to check: ciphertext is decrypted instead of left unknown.
	ShowSecrets bool `json:"showSecrets"`
}

// question is sent to the cloud in the middle of an evaluation; a reply is its answer.
type question struct {
	// Ask is environment or stack.
	Ask  string `json:"ask"`
	Name string `json:"name"`
}

type reply struct {
	Definition string          `json:"definition"`
	Outputs    json.RawMessage `json:"outputs"`
	// Error goes into a diagnostic, word for word.
	Error string `json:"error"`
}

// wire is the line-by-line connection to the cloud.
type wire struct {
	in  *bufio.Reader
	out *json.Encoder
}

func (w wire) read(into any) error {
	line, err := w.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, into)
}

// ask puts a question and waits for its reply.
func (w wire) ask(q question) (reply, error) {
	if err := w.out.Encode(q); err != nil {
		return reply{}, err
	}
	var r reply
	if err := w.read(&r); err != nil {
		return reply{}, err
	}
	if r.Error != "" {
		return reply{}, errors.New(r.Error)
	}
	return r, nil
}

func serve(w wire) error {
	var first request
	if err := w.read(&first); err != nil {
		return err
	}
	key, err := base64.StdEncoding.DecodeString(first.Key)
	if err != nil || first.Op != "start" {
		return errors.New("the first line must be a start with a key")
	}
	box, err := newBox(key)
	if err != nil {
		return err
	}
	e := evaluator{wire: w, box: box}
	for {
		var r request
		if err := w.read(&r); err != nil {
			return err
		}
		if err := w.out.Encode(e.answer(r)); err != nil {
			return err
		}
	}
}

func main() {
	err := serve(wire{in: bufio.NewReader(os.Stdin), out: json.NewEncoder(os.Stdout)})
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "the evaluator cannot go on:", err)
		os.Exit(1)
	}
}
