package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// git runs git in the repository, and returns what it prints.
func (p *plan) git(args ...string) (string, error) {
	raw, err := p.rawGit(args...)
	return strings.TrimSpace(string(raw)), err
}

func (p *plan) rawGit(args ...string) ([]byte, error) {
	cmd := exec.Command("git", append([]string{"-C", p.repo}, args...)...)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(wrong.String()))
	}
	return out, nil
}

// export writes the files of the commit into a folder. Files that are not committed are not there, so that two folders of one
// commit give the same release.
func (p *plan) export(dir string) error {
	raw, err := p.rawGit("archive", "--format=tar", p.commit)
	if err != nil {
		return err
	}
	archive := tar.NewReader(bytes.NewReader(raw))
	for {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read what git archive writes: %w", err)
		}
		path := filepath.Join(dir, filepath.FromSlash(head.Name))
		switch head.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = unpack(path, archive, head.FileInfo().Mode().Perm()&0o755|0o600)
		}
		if err != nil {
			return err
		}
	}
}

func unpack(path string, from io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, mode)
}

// run executes a program in a folder. Its output is shown if it fails.
func run(dir string, env []string, words ...string) ([]byte, error) {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var wrong bytes.Buffer
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", strings.Join(words, " "), err, out, wrong.Bytes())
	}
	return out, nil
}
