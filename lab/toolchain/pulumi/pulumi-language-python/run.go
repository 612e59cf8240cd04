package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
)

const (
	// executor is the SDK's script that connects a program to the engine.
	executor = "pulumi-language-python-exec"
	// alreadyShown is the exit code of a program whose error was sent to the engine.
	alreadyShown = 32
	// grace is how long a cancelled program may take before it is killed.
	grace = 5 * time.Second
)

// Run starts the program and waits for its end.
func (h *host) Run(ctx context.Context, request *pulumirpc.RunRequest) (*pulumirpc.RunResponse, error) {
	command, err := h.program(request)
	if err != nil {
		return nil, err
	}
	// The call ends when the engine gives it up; the host's own context when the engine cancels or is gone.
	stop := context.AfterFunc(ctx, h.cancel)
	defer stop()
	return answer(command.Run()), nil
}

func (h *host) program(request *pulumirpc.RunRequest) (*exec.Cmd, error) {
	script, err := beside(executor)
	if err != nil {
		return nil, err
	}
	tools, options, err := toolchainOf(request.Info)
	if err != nil {
		return nil, err
	}
	if options.Virtualenv != "" {
		if err := tools.ValidateVenv(h.ctx); err != nil {
			return nil, err
		}
	}
	command, err := tools.Command(h.ctx, append([]string{"-u", script}, h.arguments(request)...)...)
	if err != nil {
		return nil, err
	}
	environment, err := configuration(request)
	if err != nil {
		return nil, err
	}
	command.Dir = request.Pwd
	command.Env = append(command.Environ(), environment...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	// The engine's signal reaches this host alone, so the program gets one of its own, once.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
	command.WaitDelay = grace
	return command, nil
}

func (h *host) arguments(request *pulumirpc.RunRequest) []string {
	program := request.Info.ProgramDirectory
	if entry := request.Info.EntryPoint; entry != "" && entry != "." {
		program = filepath.Join(program, entry)
	}
	arguments := []string{
		"--monitor", request.MonitorAddress,
		"--engine", h.engine,
		"--project", request.Project,
		"--stack", request.Stack,
		"--pwd", request.Pwd,
		"--dry_run", strconv.FormatBool(request.DryRun),
		"--parallel", strconv.Itoa(int(request.Parallel)),
		"--organization", request.Organization,
		"--root_directory", request.Info.RootDirectory,
		program,
	}
	return append(arguments, request.Args...)
}

// configuration travels in the environment, secrets among it: arguments could be seen by everyone on the machine.
func configuration(request *pulumirpc.RunRequest) ([]string, error) {
	config := request.Config
	if config == nil {
		config = map[string]string{} // null is not what the program's SDK reads
	}
	values, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	secrets, err := json.Marshal(append([]string{}, request.ConfigSecretKeys...))
	if err != nil {
		return nil, err
	}
	return []string{"PULUMI_CONFIG=" + string(values), "PULUMI_CONFIG_SECRET_KEYS=" + string(secrets)}, nil
}

// answer is the vendor's host's own for each way in which a program may end.
func answer(err error) *pulumirpc.RunResponse {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return &pulumirpc.RunResponse{}
	case errors.As(err, &ended) && ended.ExitCode() == alreadyShown:
		return &pulumirpc.RunResponse{Bail: true}
	case errors.As(err, &ended) && ended.ExitCode() > 0:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("program exited with non-zero exit code: %d", ended.ExitCode())}
	default:
		return &pulumirpc.RunResponse{Error: fmt.Sprintf("program exited unexpectedly: %v", err)}
	}
}

// beside is the path of a file in this program's own folder.
func beside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("missing executor %s", path)
	}
	return path, nil
}
