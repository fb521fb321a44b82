// Reads what a collector's configuration says to the Datadog exporter into the exporter's own
// settings, and tells what these have against it:
//
//	go run . ../../../examples/collector-datadog-exporter.yaml
//
// The exporter itself takes longer to build than all the rest of the collector of the tests.
package main

import (
	"fmt"
	"os"

	datadogconfig "github.com/open-telemetry/opentelemetry-collector-contrib/pkg/datadog/config"
	"go.opentelemetry.io/collector/confmap"
)

func main() {
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		fmt.Printf("%s: valid\n", path)
	}
}

func check(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	retrieved, err := confmap.NewRetrievedFromYAML(text)
	if err != nil {
		return err
	}
	whole, err := retrieved.AsConf()
	if err != nil {
		return err
	}
	section, err := whole.Sub("exporters::datadog")
	if err != nil {
		return err
	}
	settings := datadogconfig.CreateDefaultConfig()
	if err := section.Unmarshal(settings); err != nil {
		return err
	}
	return confmap.Validate(settings)
}
