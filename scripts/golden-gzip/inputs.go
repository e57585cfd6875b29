package main

import "encoding/binary"

// The inputs, made again by proto/src/gzip/tests/inputs.rs: a change here is a change there.

// random is SplitMix64.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *random) below(n uint64) int { return int(r.next() % n) }

var kinds = []string{"zeros", "noise", "text", "again", "bands", "tar"}

func input(kind string, length int) []byte {
	r := random(length)
	out := make([]byte, 0, length+2048)
	switch kind {
	case "zeros":
		out = out[:length]
	case "noise":
		out = noise(out, &r, length, 256)
	case "text":
		out = text(out, &r, length)
	case "again":
		// The same kilobyte with a byte changed now and then.
		block := noise(nil, &r, 1000, 256)
		for len(out) < length {
			block[r.below(1000)] = byte(r.next())
			out = append(out, block...)
		}
	case "bands":
		// Runs of bytes of few values each, as many kinds of data in a row.
		for len(out) < length {
			values := 1 << r.below(9)
			out = noise(out, &r, len(out)+1+r.below(3000), values)
		}
	case "tar":
		for number := 0; len(out) < length; number++ {
			out = file(out, &r)
		}
	}
	return out[:length]
}

// noise appends bytes of so many values until there are `until`.
func noise(out []byte, r *random, until, values int) []byte {
	for len(out) < until {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], r.next())
		for _, b := range word {
			out = append(out, byte(int(b)%values))
		}
	}
	return out[:until]
}

// text appends words, common ones more often, until there are `until` bytes.
func text(out []byte, r *random, until int) []byte {
	words := make([][]byte, 400)
	for i := range words {
		word := make([]byte, 2+r.below(9))
		for j := range word {
			word[j] = byte('a' + min(r.below(26), r.below(26)))
		}
		words[i] = word
	}
	for len(out) < until {
		out = append(out, words[min(r.below(400), r.below(400), r.below(400))]...)
		if r.below(12) == 0 {
			out = append(out, '\n')
		} else {
			out = append(out, ' ')
		}
	}
	return out[:until]
}

// file appends a header, contents and padding to whole blocks of 512 bytes.
func file(out []byte, r *random) []byte {
	begun := len(out)
	out = append(out, "usr/share/doc/package/"...)
	out = noise(out, r, len(out)+6, 20)
	out = append(out, make([]byte, begun+124-len(out))...)
	size := r.below(9000)
	for shift := 30; shift >= 0; shift -= 3 {
		out = append(out, byte('0'+size>>shift&7))
	}
	out = append(out, make([]byte, begun+257-len(out))...)
	out = append(out, "ustar\x0000root"...)
	out = append(out, make([]byte, begun+512-len(out))...)
	switch r.below(3) {
	case 0:
		out = text(out, r, len(out)+size)
	case 1:
		out = noise(out, r, len(out)+size, 256)
	default:
		out = noise(out, r, len(out)+size, 12)
	}
	return append(out, make([]byte, (512-size%512)%512)...)
}
