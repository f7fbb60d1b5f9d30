package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// archive is a tar.gz of files below one folder, in the order of their names. It holds no date but one, and no owner.
func archive(folder string, files []file, date time.Time) []byte {
	var packed bytes.Buffer
	to := gzip.NewWriter(&packed)
	w := tar.NewWriter(to)
	sorted := slices.SortedFunc(slices.Values(files), func(a, b file) int { return strings.Compare(a.name, b.name) })
	for _, f := range sorted {
		head := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + f.name, Size: int64(len(f.text)), Mode: f.mode, ModTime: date, Format: tar.FormatUSTAR}
		must(w.WriteHeader(head))
		_, err := w.Write(f.text)
		must(err)
	}
	must(w.Close())
	must(to.Close())
	return packed.Bytes()
}

// gzipped is a text as the packages hold it: with the best compression, without name and date.
func gzipped(text []byte) []byte {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	must(err)
	_, err = w.Write(text)
	must(err)
	must(w.Close())
	return packed.Bytes()
}

// must is for errors of writers into memory: there are none.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

const sumsFile = "SHA256SUMS"

// sums writes the sums of all files of a folder, as sha256sum does.
func sums(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "parley*"))
	if err != nil {
		return err
	}
	slices.Sort(paths)
	var lines strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(text), filepath.Base(path))
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), []byte(lines.String()), 0o644)
}
