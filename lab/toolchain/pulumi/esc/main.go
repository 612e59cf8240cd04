// Esc is the vendor's command line for ESC environments: its module holds the commands and no program around them.
package main

import (
	"fmt"
	"os"

	"github.com/pulumi/pulumi/pkg/v3/cmd/esc/cli"
)

func main() {
	if err := cli.New(nil).Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}
