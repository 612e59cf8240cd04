// Pulumi-resource-kubernetes is the vendor's Kubernetes provider: its module holds the provider, and no program around it that builds
// without generated files. It serves labs only.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"

	"homelab-ops/lab/toolchain/guard"
)

// version is stamped when it is built.
var version = "0.0.0"

func main() {
	guard.Check("this Kubernetes provider", "pulumi plugin install resource kubernetes, in a shell without the exports of ./inv lab.env")
	go func() {
		// The vendor's own look for the engine comes every five minutes, and it may be waiting for an object meanwhile.
		<-guard.EngineGone()
		os.Exit(1)
	}()
	provider.Serve("kubernetes", version, beside("schema.json"), beside("terraform-mapping.json"))
}

// beside reads a file of the vendor's module that was put into this program's folder.
func beside(name string) []byte {
	self, err := os.Executable()
	if err == nil {
		var text []byte
		if text, err = os.ReadFile(filepath.Join(filepath.Dir(self), name)); err == nil {
			return text
		}
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
	return nil
}
