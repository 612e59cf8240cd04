// Package guard keeps the lab's plugins inside the lab: an engine that works on another backend must not be served by them, and none
// outlives its engine.
package guard

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// target is the part of the lab's target.json that says which backends are the lab's.
type target struct {
	Backend     string `json:"backend"`
	FileBackend string `json:"file_backend"`
}

// Refusal says why the engine that started this process must not be served; it is empty in a lab.
//
// An engine hands its environment on. `lab.env` and the toolkit set PULUMI_BACKEND_URL and OPS_STATE for every command on the lab.
func Refusal(plugin, install string) string {
	backend := os.Getenv("PULUMI_BACKEND_URL")
	if backend != "" && isOfLab(backend) {
		return ""
	}
	if backend == "" {
		backend = "not set"
	}
	return fmt.Sprintf("%s was built for the lab of homelab-ops and serves nothing else\n"+
		"  seen: PULUMI_BACKEND_URL is %s\n"+
		"  expected: a backend of the lab at OPS_STATE=%s\n"+
		"  next: %s", plugin, backend, os.Getenv("OPS_STATE"), install)
}

// Check ends the process with the refusal on standard error, which the engine shows, where there is one.
func Check(plugin, install string) {
	if refusal := Refusal(plugin, install); refusal != "" {
		fmt.Fprintln(os.Stderr, "error: "+refusal)
		os.Exit(1)
	}
}

func isOfLab(backend string) bool {
	text, err := os.ReadFile(filepath.Join(os.Getenv("OPS_STATE"), "lab", "target.json"))
	if err != nil {
		return false
	}
	var lab target
	if json.Unmarshal(text, &lab) != nil {
		return false
	}
	return backend == lab.Backend || backend == lab.FileBackend
}

// EngineGone is closed when the engine that started this process has ended, however it did: it holds the other end of standard input.
func EngineGone() <-chan struct{} {
	gone := make(chan struct{})
	if facts, err := os.Stdin.Stat(); err != nil || facts.Mode()&os.ModeNamedPipe == 0 {
		return gone // started by hand
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	return gone
}
