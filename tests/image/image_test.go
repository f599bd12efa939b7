// Package image tests the container image without a container engine.
//
// Containerfile and .dockerignore are read by BuildKit's own packages, so a test sees the files and commands that a
// build would see. Run by scripts/test-image.
package image

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

var (
	root  = flag.String("root", "../..", "the repository: the build context of the image")
	whole = flag.Bool("whole", false, "build the release binary as the Containerfile does; otherwise only check the code")
)

// cargoBuild finds the command that compiles the binary, up to the end of that command.
var cargoBuild = regexp.MustCompile(`cargo build [^&;|]+`)

// TestTheContextBuilds copies the files that the ignore file admits, and nothing else, and compiles them with the
// command of the Containerfile. A file that the build reads and the ignore file leaves out fails it.
func TestTheContextBuilds(t *testing.T) {
	context := admitted(t, *root)
	// Cargo builds without these settings too, but the allocator then keeps freed pages for longer.
	if _, err := os.Stat(filepath.Join(context, ".cargo", "config.toml")); err != nil {
		t.Error(err)
	}
	run := compiling(t, *root)
	target := targetDirectory(t)
	if !*whole {
		// The same packages and features, in the profile whose dependencies other steps have compiled already.
		check := strings.Replace(cargoBuild.FindString(run), "cargo build", "cargo check", 1)
		shell(t, context, strings.Replace(check, " --release", "", 1), "CARGO_TARGET_DIR="+target)
		return
	}
	// What --mount=type=cache is in an engine.
	if err := os.Symlink(target, filepath.Join(context, "target")); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	shell(t, context, strings.ReplaceAll(run, "/out/", out+"/"), "CARGO_TARGET_DIR=target")
	for _, name := range []string{"foretell", "licenses/LICENSE"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestOnlyAdmittedFilesAreCopied shows that the copy of a context obeys the ignore file: a rule, an exception to it, and
// an exception inside of a folder that is left out.
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

// admitted answers a new directory with the files that the ignore file of a build context admits.
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

// ignoring reads the ignore file, and answers also whether it has an exception inside of a folder.
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

// copyFile keeps the time of the file, so that Cargo can tell what it has compiled already.
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

// stages are those of the Containerfile; BuildKit refuses instructions and flags that it does not know.
func stages(t *testing.T, context string) []instructions.Stage {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(context, "Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(file.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

// compiling answers the text of the RUN instruction that compiles the binary.
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

// shell runs a command in a directory and shows what it says.
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
