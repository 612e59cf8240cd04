package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/pulumi/pulumi/sdk/v3/go/common/esc"
	"github.com/pulumi/pulumi/sdk/v3/go/common/esc/eval"
	"github.com/pulumi/pulumi/sdk/v3/go/common/esc/schema"
	"github.com/pulumi/pulumi/sdk/v3/go/common/esc/syntax"
)

// answer is the one line that ends a request.
type answer struct {
	// Environment is empty for an environment without values and imports, and where the definition does not parse.
	Environment *esc.Environment `json:"environment,omitempty"`
	Definition  *string          `json:"definition,omitempty"`
	Diagnostics []diagnostic     `json:"diagnostics,omitempty"`
	// Failure says that the request itself could not be carried out.
	Failure string `json:"failure,omitempty"`
}

// diagnostic has the shape of the vendor's API.
type diagnostic struct {
	Range    *esc.Range `json:"range,omitempty"`
	Summary  string     `json:"summary"`
	Detail   string     `json:"detail"`
	Severity string     `json:"severity,omitempty"`
}

type evaluator struct {
	wire wire
	box  box
}

func (e evaluator) answer(r request) (a answer) {
	// The vendor's evaluator panics on what it holds to be impossible; that must not cost the next request its answer.
	defer func() {
		if trouble := recover(); trouble != nil {
			a = answer{Failure: fmt.Sprintf("the evaluator broke down: %v", trouble)}
		}
	}()
	ctx := context.Background()
	switch r.Op {
	case "check", "open":
		return e.evaluate(ctx, r)
	case "encrypt":
		counted := &counter{box: e.box}
		definition, err := eval.EncryptSecrets(ctx, r.Name, []byte(r.Definition), counted)
		return counted.rewritten(r.Definition, definition, err)
	case "decrypt":
		counted := &counter{box: e.box}
		definition, err := eval.DecryptSecrets(ctx, r.Name, []byte(r.Definition), counted)
		return counted.rewritten(r.Definition, definition, err)
	default:
		return answer{Failure: fmt.Sprintf("unknown op %q", r.Op)}
	}
}

func (e evaluator) evaluate(ctx context.Context, r request) answer {
	definition, found, err := eval.LoadYAMLBytes(r.Name, []byte(r.Definition))
	if err != nil {
		return answer{Failure: err.Error()}
	}
	if found.HasErrors() || definition == nil {
		return answer{Diagnostics: diagnostics(found)}
	}
	execution, err := esc.NewExecContext(map[string]esc.Value{})
	if err != nil {
		return answer{Failure: err.Error()}
	}
	var environment *esc.Environment
	var more syntax.Diagnostics
	if r.Op == "check" {
		environment, more = eval.CheckEnvironment(ctx, r.Name, definition, e.box, e, e, execution, r.ShowSecrets, eval.EvalOptions{})
	} else {
		environment, more = eval.EvalEnvironment(ctx, r.Name, definition, e.box, e, e, execution, eval.EvalOptions{})
	}
	found.Extend(more...)
	return answer{Environment: environment, Diagnostics: diagnostics(found)}
}

// counter counts the secrets of one rewrite: a definition without any keeps its text, which the rewrite would lay out anew.
type counter struct {
	box
	secrets int
}

func (c *counter) Encrypt(ctx context.Context, plaintext []byte) ([]byte, error) {
	c.secrets++
	return c.box.Encrypt(ctx, plaintext)
}

func (c *counter) Decrypt(ctx context.Context, ciphertext []byte) ([]byte, error) {
	c.secrets++
	return c.box.Decrypt(ctx, ciphertext)
}

func (c *counter) rewritten(source string, definition []byte, err error) answer {
	var found syntax.Diagnostics
	if errors.As(err, &found) {
		return answer{Diagnostics: diagnostics(found)}
	}
	if err != nil {
		return answer{Failure: err.Error()}
	}
	text := string(definition)
	if c.secrets == 0 {
		text = source
	}
	return answer{Definition: &text}
}

func diagnostics(found syntax.Diagnostics) []diagnostic {
	var told []diagnostic
	for _, d := range found {
		one := diagnostic{Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			one.Severity = "warning"
		}
		if d.Subject != nil {
			one.Range = &esc.Range{Environment: d.Subject.Filename, Begin: position(d.Subject.Start), End: position(d.Subject.End)}
		}
		told = append(told, one)
	}
	return told
}

func position(p hcl.Pos) esc.Pos {
	return esc.Pos{Line: p.Line, Column: p.Column, Byte: p.Byte}
}

// LoadEnvironment implements eval.EnvironmentLoader: imports come from the cloud.
func (e evaluator) LoadEnvironment(_ context.Context, name string) ([]byte, string, eval.Decrypter, error) {
	r, err := e.wire.ask(question{Ask: "environment", Name: name})
	if err != nil {
		return nil, "", nil, err
	}
	return []byte(r.Definition), name, e.box, nil
}

// AuthorizeImport implements eval.EnvironmentLoader: one account owns every environment of the lab.
func (e evaluator) AuthorizeImport(context.Context, string, string, bool) error {
	return nil
}

// LoadProvider implements eval.ProviderLoader.
func (e evaluator) LoadProvider(_ context.Context, name string) (esc.Provider, error) {
	if name == "pulumi-stacks" {
		return stacks{e.wire}, nil
	}
	return nil, fmt.Errorf("unknown provider %q", name)
}

// LoadRotator implements eval.ProviderLoader; the lab has none.
func (e evaluator) LoadRotator(_ context.Context, name string) (esc.Rotator, error) {
	return nil, fmt.Errorf("unknown rotator %q", name)
}

// stacks is the provider pulumi-stacks: all outputs of the cloud's own stacks, secret ones secret.
type stacks struct{ wire wire }

func (s stacks) Schema() (*schema.Schema, *schema.Schema) {
	return schema.Always(), schema.Always()
}

func (s stacks) Open(_ context.Context, inputs map[string]esc.Value, _ esc.EnvExecContext) (esc.Value, error) {
	wanted, ok := inputs["stacks"].Value.(map[string]esc.Value)
	if !ok {
		return esc.Value{}, errors.New(`"stacks" must be an object of local names, each with a "stack"`)
	}
	opened := make(map[string]esc.Value, len(wanted))
	// In order, so that the same stack is told missing every time.
	for _, local := range slices.Sorted(maps.Keys(wanted)) {
		fields, _ := wanted[local].Value.(map[string]esc.Value)
		name, ok := fields["stack"].Value.(string)
		if !ok {
			return esc.Value{}, fmt.Errorf(`"stack" of %q must be a text, project/stack`, local)
		}
		outputs, err := s.outputs(name)
		if err != nil {
			return esc.Value{}, err
		}
		opened[local] = outputs
	}
	return esc.NewValue(opened), nil
}

func (s stacks) outputs(name string) (esc.Value, error) {
	r, err := s.wire.ask(question{Ask: "stack", Name: name})
	if err != nil {
		return esc.Value{}, err
	}
	var outputs esc.Value
	// Its own unmarshaller keeps numbers as json.Number; a float would lose its value silently.
	err = outputs.UnmarshalJSON(r.Outputs)
	return outputs, err
}
