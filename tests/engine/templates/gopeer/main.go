// Executes templates with Go's own text/template: the peer that the interpreter is measured against.
// Reads {"data": {...}, "cases": [{"template": ...}]} and writes [{"output": ..., "error": ...}].
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type input struct {
	Data  map[string]any
	Cases []struct{ Template string }
}

type result struct {
	Output string `json:"output"`
	Error  string `json:"error"`
}

func main() {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		panic(err)
	}
	marshal := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	results := []result{}
	for _, c := range in.Cases {
		results = append(results, run(c.Template, in.Data, template.FuncMap{"json": marshal}))
	}
	json.NewEncoder(os.Stdout).Encode(results)
}

func run(text string, data any, funcs template.FuncMap) (r result) {
	t, err := template.New("").Option("missingkey=zero").Funcs(funcs).Parse(text)
	if err == nil {
		var b strings.Builder
		err = t.Execute(&b, data)
		r.Output = b.String()
	}
	if err != nil {
		r = result{Error: err.Error()}
	}
	return r
}
