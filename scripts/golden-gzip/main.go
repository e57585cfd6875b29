// Command golden-gzip prints the digests of what Go's, buildah's and other compressors make of known inputs, for
// proto/src/gzip/tests/golden.txt, or compresses standard input:
//
//	go run . go-gzip/1                     the lines of a family
//	go run . go-gzip/1:6 [WRITE] < tar     one stream, in writes of so many bytes
//
// Which compressor that is, is decided by the toolchain and the module file:
//
//	go-gzip/1   GOTOOLCHAIN=go1.26.8 go run .
//	go-gzip/2   GOTOOLCHAIN=go1.27.0 go run .
//	pgzip/1     go run .
//	pgzip/2     go run -modfile=newer.mod .
//	pgzip/3     go run -modfile=newest.mod .
//
// and for those that are no Go programs by what is installed: zlib/1 by python3 (or PYTHON), gnu-gzip/1 by gzip (or
// GZIP_TOOL), pigz/1 by pigz (or PIGZ_TOOL).
//
// `renew` writes the whole table.
package main

import (
	"bytes"
	stdgzip "compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/klauspost/pgzip"
)

// Around the borders of what is handled apart, and of the first blocks.
var short = []int{0, 1, 2, 3, 4, 5, 16, 17, 31, 32, 33, 127, 128, 129, 1024, 1025, 16384, 65535, 70001}

// Around the borders of windows and larger blocks; for some levels.
var long = []int{32506, 32507, 32768, 32769, 65273, 65274, 65275, 65536, 65537, 131071, 262144, 1048577, 1300000}

var levels = []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "huffman"}

func main() {
	family, level, single := strings.Cut(os.Args[1], ":")
	if !single {
		for _, level := range levels {
			if !isOutside(family) || level >= "1" && level <= "9" {
				table(family, level)
			}
		}
		return
	}
	size := 1 << 16
	if len(os.Args) > 2 {
		size = must(strconv.Atoi(os.Args[2]))
	}
	compress(os.Stdout, family, level, os.Stdin, func() int { return size })
}

// table prints a line for each kind of input: the digest of all streams, one after the other, of the short lengths,
// and of all long lengths for the default level, and for levels 1 and 9 of all but pgzip.
func table(family, level string) {
	for _, kind := range kinds {
		fmt.Printf("%s:%s %s short %s\n", family, level, kind, digest(family, level, kind, short))
		if strings.HasPrefix(family, "pgzip") && level == "5" ||
			!strings.HasPrefix(family, "pgzip") && strings.Contains("169", level) {
			fmt.Printf("%s:%s %s long %s\n", family, level, kind, digest(family, level, kind, long))
		}
	}
}

func digest(family, level, kind string, lengths []int) string {
	sum := sha256.New()
	for _, length := range lengths {
		data := input(kind, length)
		var whole, parts bytes.Buffer
		compress(&whole, family, level, bytes.NewReader(data), func() int { return length + 1 })
		// Writes of whole blocks, as tar makes them, must give the same.
		r := random(1)
		compress(&parts, family, level, bytes.NewReader(data), func() int { return 512 * (1 + r.below(60)) })
		if !bytes.Equal(whole.Bytes(), parts.Bytes()) {
			panic(fmt.Sprintf("%s:%s %s %d depends on the writes", family, level, kind, length))
		}
		sum.Write(whole.Bytes())
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func compress(to io.Writer, family, level string, from io.Reader, size func() int) {
	if isOutside(family) {
		compressOutside(to, family, level, from, size)
		return
	}
	number := -2
	if level != "huffman" {
		number = must(strconv.Atoi(level))
	}
	var w io.WriteCloser
	if strings.HasPrefix(family, "pgzip") {
		w = must(pgzip.NewWriterLevel(to, number))
	} else {
		w = must(stdgzip.NewWriterLevel(to, number))
	}
	for {
		buffer := make([]byte, size())
		n, err := io.ReadFull(from, buffer)
		must(w.Write(buffer[:n]))
		if err != nil {
			break
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
