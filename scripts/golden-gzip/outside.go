package main

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// zlibStream is how Python has zlib write a gzip stream, level and bytes of a write given.
const zlibStream = `
import sys, zlib
stream = zlib.compressobj(int(sys.argv[1]), zlib.DEFLATED, 31)
while part := sys.stdin.buffer.read(int(sys.argv[2])):
    sys.stdout.buffer.write(stream.compress(part))
sys.stdout.buffer.write(stream.flush())
`

// outside is the command of a family that Go programs do not have, or nil. Which version it is, is up to the machine.
func outside(family, level string, write int) *exec.Cmd {
	switch family {
	case "zlib/1":
		return exec.Command(tool("PYTHON", "python3"), "-c", zlibStream, level, strconv.Itoa(write))
	case "gnu-gzip/1":
		return exec.Command(tool("GZIP_TOOL", "gzip"), "-n", "-"+level)
	case "pigz/1":
		return exec.Command(tool("PIGZ_TOOL", "pigz"), "-n", "-"+level, "-p", "2")
	}
	return nil
}

func tool(variable, name string) string {
	if path := os.Getenv(variable); path != "" {
		return path
	}
	return name
}

// isOutside says whether a family's levels are 1 to 9, by a command.
func isOutside(family string) bool { return outside(family, "1", 1) != nil }

func compressOutside(to io.Writer, family, level string, from io.Reader, size func() int) {
	command := outside(family, level, size())
	command.Stdin, command.Stdout, command.Stderr = parts{from, size}, to, os.Stderr
	if err := command.Run(); err != nil {
		panic(strings.Join(command.Args, " ") + ": " + err.Error())
	}
}

// parts reads so many bytes at a time.
type parts struct {
	from io.Reader
	size func() int
}

func (p parts) Read(buffer []byte) (int, error) {
	n, err := io.ReadFull(p.from, buffer[:min(len(buffer), p.size())])
	if err == io.ErrUnexpectedEOF {
		err = nil
	}
	return n, err
}
