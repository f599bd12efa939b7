// Package image tests the container image without a container engine.
//
// Containerfile and .dockerignore are read by BuildKit's own packages, so a test sees the files and commands that a
// build would see. Run by scripts/test-image.
package image

import (
	"flag"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

var (
	root     = flag.String("root", "../..", "the repository: the build context of the image")
	foretell = flag.String("foretell", "", "a binary to use instead of that of the image")
	whole    = flag.Bool("whole", false, "build the image's binary, and use it; otherwise only check the code")
)

// cargoBuild finds the command that compiles the binary, up to the end of that command.
var cargoBuild = regexp.MustCompile(`cargo build [^&;|]+`)

// commit is passed to the builds of this test as a build argument of the Containerfile. The builds share a target
// directory with those of the repository, and without a changed variable, Cargo would not run the build script again.
var commit = []string{"REVISION=context", "FORETELL_COMMIT=context"}

// TestTheContextBuilds copies the files that the ignore file admits, and nothing else, and compiles them with the
// command of the Containerfile. It fails if the ignore file excludes a file that the build reads.
func TestTheContextBuilds(t *testing.T) {
	context := admitted(t, *root)
	// Cargo builds without these settings too, but the allocator then keeps freed pages for longer.
	if _, err := os.Stat(filepath.Join(context, ".cargo", "config.toml")); err != nil {
		t.Error(err)
	}
	run := compiling(t, *root)
	target := targetDirectory(t)
	if !*whole {
		// The same package, in the profile and with the OpenSSL that other steps have already compiled against.
		check := strings.NewReplacer("cargo build", "cargo check", " --release", "", " --features vendored-openssl", "")
		shell(t, context, check.Replace(cargoBuild.FindString(run)), append(commit, "CARGO_TARGET_DIR="+target)...)
		return
	}
	// Replaces --mount=type=cache of a container engine.
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(context, "target")); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	shell(t, context, strings.ReplaceAll(run, "/out/", out+"/"), append(commit, "CARGO_TARGET_DIR=target")...)
	if _, err := os.Stat(filepath.Join(out, "licenses", "LICENSE")); err != nil {
		t.Error(err)
	}
	binary := filepath.Join(out, "foretell")
	version, err := exec.Command(binary, "--version").Output()
	if err != nil || !strings.Contains(string(version), "(context)") {
		t.Errorf("--version says %q (%v), and does not name the commit of the build argument REVISION", version, err)
	}
	answers(t, binary)
}

// TestTheDefaultCommandAnswers does the same with an existing binary.
func TestTheDefaultCommandAnswers(t *testing.T) {
	binary, err := filepath.Abs(*foretell)
	if err != nil {
		t.Fatal(err)
	}
	answers(t, binary)
}

// TestTheImageIsDescribed checks the last stage of the Containerfile.
func TestTheImageIsDescribed(t *testing.T) {
	image := described(t, *root)
	listens, operators := image.option(t, "--listen"), image.option(t, "--ops-listen")
	for _, address := range []string{listens, operators} {
		port, found := strings.CutPrefix(address, "0.0.0.0:")
		if !found || !slices.Contains(image.ports, port) {
			t.Errorf("%s cannot be reached from outside of the container, or is not among the ports %v", address, image.ports)
		}
	}
	probed := []string{"CMD", "/foretell", "health", "http://127.0.0.1:" + strings.TrimPrefix(operators, "0.0.0.0:")}
	if !slices.Equal(image.health, probed) {
		t.Errorf("HEALTHCHECK is %q, not %q", image.health, probed)
	}
	if !slices.Equal(image.entrypoint, []string{"/foretell"}) {
		t.Errorf("ENTRYPOINT is %q", image.entrypoint)
	}
	// Kubernetes can only verify that a numeric user is not root.
	if !regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(image.user) {
		t.Errorf("USER is %q, not numbers of a user and a group without rights", image.user)
	}
	for _, name := range []string{
		"title", "description", "source", "documentation", "licenses", "version", "revision", "created", "base.name",
	} {
		if image.labels["org.opencontainers.image."+name] == "" {
			t.Errorf("there is no label org.opencontainers.image.%s", name)
		}
	}
	version := regexp.MustCompile(`(?m)^version = "(.+)"$`).FindStringSubmatch(read(t, filepath.Join(*root, "Cargo.toml")))
	if version == nil || image.defaults["VERSION"] != version[1] {
		t.Errorf("VERSION is %q by default, and Cargo.toml has %q", image.defaults["VERSION"], version)
	}
}

// TestOnlyAdmittedFilesAreCopied checks that the copy of a context follows the ignore file: a rule, an exception to it,
// and an exception inside an excluded folder.
func TestOnlyAdmittedFilesAreCopied(t *testing.T) {
	from := t.TempDir()
	for name, text := range map[string]string{
		".dockerignore": "*\n!src\nsrc/*.bak\n!fuzz/Cargo.toml\n",
		"src/lib.rs":    "", "src/deep/a.rs": "", "src/lib.rs.bak": "",
		"fuzz/Cargo.toml": "", "fuzz/corpus/one": "", "secret": "", "target/debug/foretell": "",
	} {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var copied []string
	into := admitted(t, from)
	err := filepath.WalkDir(into, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			copied = append(copied, strings.TrimPrefix(path, into+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(copied, " "), "fuzz/Cargo.toml src/deep/a.rs src/lib.rs"; got != want {
		t.Errorf("copied %q, not %q", got, want)
	}
}

// admitted returns a new directory with the files that the ignore file of a build context admits.
func admitted(t *testing.T, context string) string {
	t.Helper()
	matcher, excepted := ignoring(t, context)
	into := t.TempDir()
	err := filepath.WalkDir(context, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == context {
			return err
		}
		name, err := filepath.Rel(context, path)
		if err != nil {
			return err
		}
		ignored, err := matcher.MatchesOrParentMatches(name)
		switch {
		case err != nil:
			return err
		case ignored && entry.IsDir() && !excepted(name):
			return fs.SkipDir
		case ignored || entry.IsDir():
			return nil
		}
		return copyFile(path, filepath.Join(into, name))
	})
	if err != nil {
		t.Fatal(err)
	}
	return into
}

// ignoring reads the ignore file, and also returns whether it has an exception inside a folder.
func ignoring(t *testing.T, context string) (*patternmatcher.PatternMatcher, func(folder string) bool) {
	t.Helper()
	file, err := os.Open(filepath.Join(context, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return matcher, func(folder string) bool {
		for _, pattern := range matcher.Patterns() {
			if pattern.Exclusion() && strings.HasPrefix(pattern.String()+"/", folder+"/") {
				return true
			}
		}
		return false
	}
}

// copyFile keeps the time of the file, so that Cargo recognises what it has already compiled.
func copyFile(from, to string) error {
	about, err := os.Stat(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, text, about.Mode().Perm()); err != nil {
		return err
	}
	return os.Chtimes(to, about.ModTime(), about.ModTime())
}

// stages returns the stages of the Containerfile; BuildKit rejects unknown instructions and flags.
func stages(t *testing.T, context string) []instructions.Stage {
	t.Helper()
	file, err := parser.Parse(strings.NewReader(read(t, filepath.Join(context, "Containerfile"))))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(file.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

// compiling returns the text of the RUN instruction that compiles the binary.
func compiling(t *testing.T, context string) string {
	t.Helper()
	var found []string
	for _, stage := range stages(t, context) {
		for _, command := range stage.Commands {
			if run, ok := command.(*instructions.RunCommand); ok && cargoBuild.MatchString(run.CmdLine[0]) {
				found = append(found, run.CmdLine[0])
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("the Containerfile has %d RUN instructions with cargo build, not 1", len(found))
	}
	return found[0]
}

// settings returns the settings of the image, from its last stage.
type settings struct {
	entrypoint, command, health, ports []string
	user                               string
	labels, defaults                   map[string]string
}

func described(t *testing.T, context string) settings {
	t.Helper()
	all := stages(t, context)
	image := settings{labels: map[string]string{}, defaults: map[string]string{}}
	for _, command := range all[len(all)-1].Commands {
		switch command := command.(type) {
		case *instructions.EntrypointCommand:
			image.entrypoint = command.CmdLine
		case *instructions.CmdCommand:
			image.command = command.CmdLine
		case *instructions.HealthCheckCommand:
			image.health = command.Health.Test
		case *instructions.ExposeCommand:
			image.ports = append(image.ports, command.Ports...)
		case *instructions.UserCommand:
			image.user = command.User
		case *instructions.LabelCommand:
			for _, label := range command.Labels {
				image.labels[label.Key] = label.Value
			}
		case *instructions.ArgCommand:
			for _, argument := range command.Args {
				if argument.Value != nil {
					image.defaults[argument.Key] = *argument.Value
				}
			}
		}
	}
	return image
}

// option returns the value of a flag of the default command.
func (image settings) option(t *testing.T, flag string) string {
	t.Helper()
	at := slices.Index(image.command, flag)
	if at < 0 || at+1 == len(image.command) {
		t.Fatalf("CMD %q has no %s", image.command, flag)
	}
	return image.command[at+1]
}

// answers runs the default command of the image with this binary, on loopback and on free ports. The health check must
// pass, and the printed key must give access to the API, which rejects requests without it.
func answers(t *testing.T, binary string) {
	t.Helper()
	image := described(t, *root)
	api, operators := freeAddress(t), freeAddress(t)
	place := strings.NewReplacer(
		image.option(t, "--listen"), api,
		image.option(t, "--ops-listen"), operators,
		strings.Replace(image.option(t, "--ops-listen"), "0.0.0.0", "127.0.0.1", 1), operators,
	)
	in := func(arguments []string) *exec.Cmd {
		words := make([]string, len(arguments))
		for at, word := range arguments {
			words[at] = place.Replace(word)
		}
		command := exec.Command(binary, words...)
		command.Dir, command.Env = t.TempDir(), []string{}
		return command
	}
	said := filepath.Join(t.TempDir(), "stderr")
	messages, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	serve := in(image.command)
	serve.Stderr = messages
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	defer serve.Process.Kill()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		// HEALTHCHECK begins with CMD and the path of the binary in the image.
		answer, err := in(image.health[2:]).CombinedOutput()
		if err == nil {
			break
		}
		if time.Since(began) > 2*time.Minute || len(ended) > 0 {
			t.Fatalf("the health check does not pass: %s%s", answer, read(t, said))
		}
	}
	key := regexp.MustCompile(`(?m)^fk_[0-9a-f]+$`).FindAllString(read(t, said), -1)
	if len(key) != 1 {
		t.Fatalf("there are %d keys in %s", len(key), read(t, said))
	}
	url := "http://" + api + "/v1/users/nobody"
	without, with := statusOf(t, url, ""), statusOf(t, url, key[0])
	if without != http.StatusUnauthorized || with != http.StatusNotFound {
		t.Errorf("the API answers %d without the key and %d with it, not 401 and 404", without, with)
	}
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v: %s", err, read(t, said))
	}
}

// freeAddress returns an unused address on loopback.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func statusOf(t *testing.T, url, key string) int {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func targetDirectory(t *testing.T) string {
	t.Helper()
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(*root, "target")
	}
	target, err := filepath.Abs(target)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// shell runs a command in a directory and prints its output.
func shell(t *testing.T, directory, text string, environment ...string) {
	t.Helper()
	t.Logf("in a copy of the context: %s", text)
	command := exec.Command("sh", "-ec", text)
	command.Dir = directory
	command.Env = append(os.Environ(), environment...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}
