package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/pulumi/pulumi/sdk/v3/go/common/version"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// host implements what the engine asks of a language. Code generation and plugins written in Python are left unimplemented.
type host struct {
	pulumirpc.UnimplementedLanguageRuntimeServer

	engine string
	// ctx ends with the engine, or when it asks the host to cancel: every program stops then.
	ctx    context.Context
	cancel context.CancelFunc
}

func newHost(ctx context.Context, engine string) *host {
	ctx, cancel := context.WithCancel(ctx)
	return &host{engine: engine, ctx: ctx, cancel: cancel}
}

func (h *host) Handshake(_ context.Context, request *pulumirpc.LanguageHandshakeRequest) (*pulumirpc.LanguageHandshakeResponse, error) {
	if request.EngineAddress != "" {
		h.engine = request.EngineAddress
	}
	return &pulumirpc.LanguageHandshakeResponse{}, nil
}

func (h *host) GetPluginInfo(context.Context, *emptypb.Empty) (*pulumirpc.PluginInfo, error) {
	return &pulumirpc.PluginInfo{Version: version.Version}, nil
}

// GetRequiredPackages names none, so that the engine downloads nothing: it looks for a provider when a resource asks for one.
func (h *host) GetRequiredPackages(context.Context, *pulumirpc.GetRequiredPackagesRequest) (*pulumirpc.GetRequiredPackagesResponse, error) {
	return &pulumirpc.GetRequiredPackagesResponse{}, nil
}

func (h *host) GetRequiredPlugins(context.Context, *pulumirpc.GetRequiredPluginsRequest) (*pulumirpc.GetRequiredPluginsResponse, error) {
	return &pulumirpc.GetRequiredPluginsResponse{}, nil
}

func (h *host) RuntimeOptionsPrompts(context.Context, *pulumirpc.RuntimeOptionsRequest) (*pulumirpc.RuntimeOptionsResponse, error) {
	return &pulumirpc.RuntimeOptionsResponse{}, nil
}

func (h *host) Template(context.Context, *pulumirpc.TemplateRequest) (*pulumirpc.TemplateResponse, error) {
	return &pulumirpc.TemplateResponse{}, nil
}

func (h *host) Cancel(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	h.cancel()
	return &emptypb.Empty{}, nil
}

func (h *host) About(ctx context.Context, request *pulumirpc.AboutRequest) (*pulumirpc.AboutResponse, error) {
	tools, _, err := toolchainOf(request.Info)
	if err != nil {
		return nil, err
	}
	info, err := tools.About(ctx)
	if err != nil {
		return nil, err
	}
	return &pulumirpc.AboutResponse{Executable: info.PythonExecutable, Version: info.PythonVersion.String()}, nil
}

func (h *host) GetProgramDependencies(
	ctx context.Context, request *pulumirpc.GetProgramDependenciesRequest,
) (*pulumirpc.GetProgramDependenciesResponse, error) {
	tools, _, err := toolchainOf(request.Info)
	if err != nil {
		return nil, err
	}
	packages, err := tools.ListPackages(ctx, request.TransitiveDependencies)
	if err != nil {
		return nil, err
	}
	answer := &pulumirpc.GetProgramDependenciesResponse{}
	for _, found := range packages {
		answer.Dependencies = append(answer.Dependencies, &pulumirpc.DependencyInfo{Name: found.Name, Version: found.Version})
	}
	return answer, nil
}

// InstallDependencies is `pulumi install`: what the toolchain that the project names would do.
func (h *host) InstallDependencies(
	request *pulumirpc.InstallDependenciesRequest, stream grpc.ServerStreamingServer[pulumirpc.InstallDependenciesResponse],
) error {
	tools, _, err := toolchainOf(request.Info)
	if err != nil {
		return err
	}
	stdout := writer(func(text []byte) error { return stream.Send(&pulumirpc.InstallDependenciesResponse{Stdout: text}) })
	stderr := writer(func(text []byte) error { return stream.Send(&pulumirpc.InstallDependenciesResponse{Stderr: text}) })
	return tools.InstallDependencies(
		stream.Context(), request.Info.ProgramDirectory, request.UseLanguageVersionTools, true, stdout, stderr)
}

// writer sends what is written to it to the engine.
type writer func([]byte) error

func (w writer) Write(text []byte) (int, error) {
	return len(text), w(append([]byte(nil), text...))
}

// toolchainOf reads `runtime.options` of Pulumi.yaml as the vendor's host does.
func toolchainOf(info *pulumirpc.ProgramInfo) (toolchain.Toolchain, toolchain.PythonOptions, error) {
	options := toolchain.PythonOptions{Root: info.RootDirectory, ProgramDir: info.ProgramDirectory}
	for name, value := range info.Options.AsMap() {
		text, isText := value.(string)
		if !isText {
			return nil, options, fmt.Errorf("%s: runtime option %s must be a string", filepath.Join(info.RootDirectory, "Pulumi.yaml"), name)
		}
		if err := setOption(&options, name, text); err != nil {
			return nil, options, err
		}
	}
	tools, err := toolchain.ResolveToolchain(options)
	return tools, options, err
}

func setOption(options *toolchain.PythonOptions, name, value string) error {
	switch name {
	case "virtualenv":
		options.Virtualenv = value
	case "toolchain":
		chosen, known := map[string]func(){
			"pip":    func() { options.Toolchain = toolchain.Pip },
			"poetry": func() { options.Toolchain = toolchain.Poetry },
			"uv":     func() { options.Toolchain = toolchain.Uv },
		}[value]
		if !known {
			return fmt.Errorf("unsupported toolchain option: %s", value)
		}
		chosen()
	case "typechecker":
		// A check before the run; this host leaves it to the checks of the repository.
	default:
		return fmt.Errorf("unsupported runtime option: %s", name)
	}
	return nil
}
