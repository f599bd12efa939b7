// Sends logins with Kafka clients for Go: send CLIENT BROKERS TOPIC COUNT. Each login has its own user.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash"
	"log"
	"os"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
	confluent "github.com/confluentinc/confluent-kafka-go/v2/kafka"
	segmentio "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

const contentType = "application/cloudevents+json"

func key(n int) []byte { return []byte(fmt.Sprintf("default:user-%d", n)) }

func value(n int) []byte {
	return []byte(fmt.Sprintf(`{"specversion":"1.0","id":"e%d","source":"urn:producers",`+
		`"type":"foretell.login.succeeded","data":{"user_id":"user-%d","ip":"198.51.100.7"}}`, n, n))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func franz(brokers []string, topic string, count int) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic))
	check(err)
	defer client.Close()
	records := make([]*kgo.Record, count)
	for n := range records {
		headers := []kgo.RecordHeader{{Key: "content-type", Value: []byte(contentType)}}
		records[n] = &kgo.Record{Key: key(n), Value: value(n), Headers: headers}
	}
	check(client.ProduceSync(context.Background(), records...).FirstErr())
}

// With a nil balancer the writer uses its default one.
func kafkaGo(balancer segmentio.Balancer) func([]string, string, int) {
	return func(brokers []string, topic string, count int) {
		writer := &segmentio.Writer{Addr: segmentio.TCP(brokers...), Topic: topic, RequiredAcks: segmentio.RequireAll}
		if balancer != nil {
			writer.Balancer = balancer
		}
		messages := make([]segmentio.Message, count)
		for n := range messages {
			headers := []segmentio.Header{{Key: "content-type", Value: []byte(contentType)}}
			messages[n] = segmentio.Message{Key: key(n), Value: value(n), Headers: headers}
		}
		check(writer.WriteMessages(context.Background(), messages...))
		check(writer.Close())
	}
}

// With a nil partitioner Sarama uses its default one.
func saramaWith(partitioner sarama.PartitionerConstructor) func([]string, string, int) {
	return func(brokers []string, topic string, count int) {
		config := sarama.NewConfig()
		config.Producer.Return.Successes = true
		config.Producer.RequiredAcks = sarama.WaitForAll
		if partitioner != nil {
			config.Producer.Partitioner = partitioner
		}
		producer, err := sarama.NewSyncProducer(brokers, config)
		check(err)
		messages := make([]*sarama.ProducerMessage, count)
		for n := range messages {
			headers := []sarama.RecordHeader{{Key: []byte("content-type"), Value: []byte(contentType)}}
			messages[n] = &sarama.ProducerMessage{
				Topic: topic, Key: sarama.ByteEncoder(key(n)), Value: sarama.ByteEncoder(value(n)), Headers: headers,
			}
		}
		check(producer.SendMessages(messages))
		check(producer.Close())
	}
}

func confluentWith(settings confluent.ConfigMap) func([]string, string, int) {
	return func(brokers []string, topic string, count int) {
		check(settings.SetKey("bootstrap.servers", strings.Join(brokers, ",")))
		producer, err := confluent.NewProducer(&settings)
		check(err)
		defer producer.Close()
		place := confluent.TopicPartition{Topic: &topic, Partition: confluent.PartitionAny}
		deliveries := make(chan confluent.Event, count)
		for n := range count {
			headers := []confluent.Header{{Key: "content-type", Value: []byte(contentType)}}
			message := &confluent.Message{TopicPartition: place, Key: key(n), Value: value(n), Headers: headers}
			check(producer.Produce(message, deliveries))
		}
		for range count {
			check((<-deliveries).(*confluent.Message).TopicPartition.Error)
		}
	}
}

// Kafka's murmur2 as a hash.Hash32, as Sarama requires.
type murmur2 struct{ data []byte }

func newMurmur2() hash.Hash32 { return &murmur2{} }

func (m *murmur2) Write(data []byte) (int, error) {
	m.data = append(m.data, data...)
	return len(data), nil
}
func (m *murmur2) Reset()         { m.data = m.data[:0] }
func (m *murmur2) Size() int      { return 4 }
func (m *murmur2) BlockSize() int { return 4 }
func (m *murmur2) Sum(in []byte) []byte {
	return binary.BigEndian.AppendUint32(in, m.Sum32())
}
func (m *murmur2) Sum32() uint32 {
	const multiplier = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(m.data))
	rest := m.data
	for ; len(rest) >= 4; rest = rest[4:] {
		k := binary.LittleEndian.Uint32(rest) * multiplier
		h = h*multiplier ^ (k^k>>24)*multiplier
	}
	if len(rest) > 0 {
		var last uint32
		for at, b := range rest {
			last |= uint32(b) << (8 * at)
		}
		h = (h ^ last) * multiplier
	}
	h = (h ^ h>>13) * multiplier
	return h ^ h>>15
}

func main() {
	clients := map[string]func([]string, string, int){
		"confluent-kafka-go":         confluentWith(confluent.ConfigMap{}),
		"confluent-kafka-go-murmur2": confluentWith(confluent.ConfigMap{"partitioner": "murmur2_random"}),
		"franz-go":                   franz,
		"kafka-go":                   kafkaGo(nil),
		"kafka-go-hash":              kafkaGo(&segmentio.Hash{}),
		"kafka-go-murmur2":           kafkaGo(segmentio.Murmur2Balancer{}),
		"sarama":                     saramaWith(nil),
		"sarama-murmur2": saramaWith(sarama.NewCustomPartitioner(
			sarama.WithAbsFirst(), sarama.WithCustomHashFunction(newMurmur2))),
	}
	send, known := clients[os.Args[1]]
	if !known {
		log.Fatalf("unknown client %s", os.Args[1])
	}
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	send(strings.Split(os.Args[2], ","), os.Args[3], count)
}
