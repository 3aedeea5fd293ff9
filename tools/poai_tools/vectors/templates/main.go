// A PoAI client for the conformance vectors: JSON requests on standard input, answers on standard output.
//
// Add a function: write it, and enter it in functions as "suite/function". Everything that is not there is answered
// with client/not-implemented, which counts as a gap and not as a failure. Only Go's standard library is used.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
)

// Rejection is an input that the specification rejects; the text is the code, such as difficulty/target.
type Rejection string

func (r Rejection) Error() string { return string(r) }

type request struct {
	ID       *string         `json:"id"`
	Suite    string          `json:"suite"`
	Function string          `json:"function"`
	Input    json.RawMessage `json:"input"`
}

type answer struct {
	ID     *string     `json:"id"`
	Output interface{} `json:"output,omitempty"`
	Code   string      `json:"code,omitempty"`
}

// roundShift gives each x / 2^n, rounded to nearest, halves up; for n <= 0 the exact left shift.
func roundShift(input json.RawMessage) (interface{}, error) {
	var in struct {
		X []string `json:"x"`
		N int      `json:"n"`
	}
	if err := json.Unmarshal(input, &in); err != nil {
		return nil, err
	}
	y := make([]string, 0, len(in.X)) // not nil, which JSON would have as null
	for _, text := range in.X {
		x, ok := new(big.Int).SetString(text, 10)
		if !ok {
			return nil, fmt.Errorf("no integer: %q", text)
		}
		if in.N > 0 {
			half := new(big.Int).Lsh(big.NewInt(1), uint(in.N-1))
			x.Rsh(x.Add(x, half), uint(in.N)) // Rsh floors, also negative numbers
		} else {
			x.Lsh(x, uint(-in.N))
		}
		y = append(y, x.String())
	}
	return map[string]interface{}{"y": y}, nil
}

var functions = map[string]func(json.RawMessage) (interface{}, error){
	"fixed_point/round_shift": roundShift,
}

// answerLine gives output or code of a function on an input. An input that cannot be read is a bad request.
func answerLine(line []byte) answer {
	var r request
	if err := json.Unmarshal(line, &r); err != nil || r.ID == nil {
		return answer{Code: "client/bad-request"}
	}
	run, ok := functions[r.Suite+"/"+r.Function]
	if !ok {
		return answer{ID: r.ID, Code: "client/not-implemented"}
	}
	output, err := run(r.Input)
	var rejection Rejection
	if errors.As(err, &rejection) {
		return answer{ID: r.ID, Code: string(rejection)}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return answer{ID: r.ID, Code: "client/bad-request"}
	}
	return answer{ID: r.ID, Output: output}
}

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out) // ends each value with a line feed
	for {
		line, err := in.ReadBytes('\n') // a Scanner would refuse the longest lines
		if err == io.EOF {
			return
		}
		if err == nil {
			err = encoder.Encode(answerLine(line))
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
