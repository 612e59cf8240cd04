// Pulumi-language-python runs Python programs for the engine: the vendor's language host is in no Go module that is served.
//
// It serves labs only. Interpreters are found by the SDK's own package python/toolchain; the program runs in the SDK's own script
// pulumi-language-python-exec, which lies beside this one.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/logging"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"

	"homelab-ops/lab/toolchain/guard"
)

func main() {
	guard.Check("this Python language host", "pulumi plugin install language python, in a shell without the exports of ./inv lab.env")
	logging.InitLogging(false, 0, false)
	if err := serve(engineAddress(os.Args[1:])); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// engineAddress is the one positional argument; some commands start the host without an engine.
func engineAddress(args []string) string {
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return ""
}

// serve answers until the engine is gone or says so with a signal. No program is left running then.
func serve(engine string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := newHost(ctx, engine)
	cancel := make(chan bool)
	handle, err := rpcutil.ServeWithOptions(rpcutil.ServeOptions{
		Cancel: cancel,
		Init: func(server *grpc.Server) error {
			pulumirpc.RegisterLanguageRuntimeServer(server, served)
			return nil
		},
	})
	if err != nil {
		return err
	}
	fmt.Println(handle.Port)
	go func() {
		select {
		case <-ctx.Done():
		case <-guard.EngineGone():
			stop()
		}
		close(cancel)
	}()
	return <-handle.Done
}
