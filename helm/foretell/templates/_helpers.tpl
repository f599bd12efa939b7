{{- define "foretell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* With the longest suffix, "-reminders", the name still fits into the 63 characters of a label. */}}
{{- define "foretell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "foretell.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "foretell.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "foretell.selector" . }}
{{- with omit .Values.global.commonLabels "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "app.kubernetes.io/component" }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- define "foretell.selector" -}}
app.kubernetes.io/name: {{ include "foretell.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "foretell.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "foretell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* global.imageRegistry replaces the registry in the repository. As in container engines, the first component of the
     repository is a registry if it contains a dot or a port, or is localhost. */}}
{{- define "foretell.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.global.imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- if and (rest $parts) (regexMatch "[.:]|^localhost$" (first $parts)) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" . (join "/" $parts) -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The common part of all pods. Takes the root, the component, and `own`: values that override the common ones. */}}
{{- define "foretell.pod" -}}
{{- $root := .root -}}
{{- $own := .own -}}
automountServiceAccountToken: false
# Variables that Kubernetes generates from Services have the same prefix as the settings.
enableServiceLinks: false
{{- with include "foretell.securityContext" (dict "root" $root "context" $root.Values.podSecurityContext) }}
securityContext:
  {{- . | nindent 2 }}
{{- end }}
{{- $pullSecrets := $root.Values.image.pullSecrets -}}
{{- range $root.Values.global.imagePullSecrets -}}
{{- if kindIs "map" . -}}
{{- $pullSecrets = append $pullSecrets .name -}}
{{- else -}}
{{- $pullSecrets = append $pullSecrets . -}}
{{- end -}}
{{- end -}}
{{- with uniq $pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with default $root.Values.priorityClassName $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with default $root.Values.nodeSelector $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $root.Values.tolerations $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $root.Values.affinity $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $root.Values.topologySpreadConstraints $own.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- $labels := set (include "foretell.selector" $root | fromYaml) "app.kubernetes.io/component" $.component }}
  {{- range . }}
  {{- $selector := default (dict "matchLabels" $labels) .labelSelector }}
  - {{- set (deepCopy .) "labelSelector" $selector | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Checks that span several values, which the schema cannot express. */}}
{{- define "foretell.check" -}}
{{- if not .Values.enabled -}}
{{- fail "enabled is for parent charts: add the condition NAME.enabled to the dependency" -}}
{{- end -}}
{{- if eq (int64 .Values.ops.port) (int64 .Values.http.port) -}}
{{- fail "ops.port and http.port must be different: they are two listeners of one pod" -}}
{{- end -}}
{{- if and .Values.http.insecure .Values.http.apiKeysSecret -}}
{{- fail "http.insecure serves without API keys: clear http.apiKeysSecret, or set http.insecure to false" -}}
{{- end -}}
{{- if not (or .Values.http.insecure .Values.http.apiKeysSecret) -}}
{{- fail "set http.apiKeysSecret to a Secret of API keys, or set http.insecure to true" -}}
{{- end -}}
{{- $sasl := hasPrefix "sasl_" .Values.kafka.securityProtocol -}}
{{- if and $sasl (not (and .Values.kafka.saslMechanism .Values.kafka.credentialsSecret)) -}}
{{- fail "kafka.securityProtocol is a sasl_ protocol: set kafka.saslMechanism and kafka.credentialsSecret" -}}
{{- end -}}
{{- if and (not $sasl) (or .Values.kafka.saslMechanism .Values.kafka.credentialsSecret) -}}
{{- fail "kafka.saslMechanism and kafka.credentialsSecret have no effect without a sasl_ protocol in kafka.securityProtocol" -}}
{{- end -}}
{{- if and .Values.kafka.tls.secret (not (hasSuffix "ssl" .Values.kafka.securityProtocol)) -}}
{{- fail "kafka.tls.secret has no effect without ssl or sasl_ssl in kafka.securityProtocol" -}}
{{- end -}}
{{- range $name := list "kafka" "cassandra" -}}
{{- $tls := (index $.Values $name).tls -}}
{{- if and $tls.clientCertificate (not $tls.secret) -}}
{{- fail (printf "%s.tls.clientCertificate needs %s.tls.secret" $name $name) -}}
{{- end -}}
{{- end -}}
{{- $files := concat (list .Values.enrich.geoAsn .Values.enrich.geoCity) .Values.enrich.denyLists .Values.enrich.allowLists | compact -}}
{{- if ne (empty $files) (empty .Values.enrich.volume) -}}
{{- fail "enrich.volume needs the names of files on it, and the names need enrich.volume" -}}
{{- end -}}
{{- $drains := add (dig "kafka" "drain_ms" 10000 .Values.settings | int64) (dig "http" "drain_ms" 10000 .Values.settings | int64) (dig "decisions" "drain_ms" 5000 .Values.settings | int64) -}}
{{- $needed := addf (divf $drains 1000.0) .Values.http.preStopSeconds 10 -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds must be more than %v: the sum of preStopSeconds, the drains of kafka, http and decisions, and 10 s" $needed) -}}
{{- end -}}
{{- end -}}

{{/* The configuration as a map: settings, overridden by the other values. */}}
{{- define "foretell.config" -}}
{{- $kafka := dict "security_protocol" .Values.kafka.securityProtocol -}}
{{- with .Values.kafka.saslMechanism }}{{- $_ := set $kafka "sasl_mechanism" . -}}{{- end -}}
{{- $cassandra := dict "replication_factor" .Values.cassandra.replicationFactor -}}
{{- with .Values.cassandra.datacenter }}{{- $_ := set $cassandra "datacenter" . -}}{{- end -}}
{{- range $name, $section := dict "kafka" $kafka "cassandra" $cassandra -}}
{{- $values := index $.Values $name -}}
{{- if $values.credentialsSecret -}}
{{- $_ := set $section "password_file" (printf "/etc/foretell/%s/credentials/password" $name) -}}
{{- end -}}
{{- if $values.tls.secret -}}
{{- $_ := set $section "ca_file" (printf "/etc/foretell/%s/tls/ca.crt" $name) -}}
{{- if $values.tls.clientCertificate -}}
{{- $_ := set $section "certificate_file" (printf "/etc/foretell/%s/tls/tls.crt" $name) -}}
{{- $_ := set $section "key_file" (printf "/etc/foretell/%s/tls/tls.key" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $http := dict "listen" (printf "0.0.0.0:%d" (int64 .Values.http.port)) -}}
{{- if .Values.http.apiKeysSecret -}}
{{- $_ := set $http "api_keys_file" "/etc/foretell/api-keys/api-keys.toml" -}}
{{- end -}}
{{- $ops := dict "listen" (printf "0.0.0.0:%d" (int64 .Values.ops.port)) -}}
{{- $topics := dict
  "prefix" .Values.topics.prefix
  "partitions" .Values.topics.partitions
  "replication_factor" .Values.topics.replicationFactor
  "min_insync_replicas" .Values.topics.minInsyncReplicas
  "decision_retention_days" .Values.topics.decisionRetentionDays
  "dead_letter_retention_days" .Values.topics.deadLetterRetentionDays -}}
{{- $enrich := dict -}}
{{- with .Values.enrich.geoAsn }}{{- $_ := set $enrich "geo_asn" (printf "/var/lib/foretell/enrich/%s" .) -}}{{- end -}}
{{- with .Values.enrich.geoCity }}{{- $_ := set $enrich "geo_city" (printf "/var/lib/foretell/enrich/%s" .) -}}{{- end -}}
{{- range $key, $names := dict "deny_lists" .Values.enrich.denyLists "allow_lists" .Values.enrich.allowLists -}}
{{- $paths := list -}}
{{- range $names }}{{- $paths = append $paths (printf "/var/lib/foretell/enrich/%s" .) -}}{{- end -}}
{{- if $paths }}{{- $_ := set $enrich $key $paths -}}{{- end -}}
{{- end -}}
{{- $managed := dict
  "enrich" $enrich
  "log" (printf "kafka://%s" (join "," .Values.kafka.brokers))
  "store" (printf "cassandra://%s/%s" (join "," .Values.cassandra.nodes) .Values.cassandra.keyspace)
  "topics" $topics "http" $http "ops" $ops "kafka" $kafka "cassandra" $cassandra -}}
{{- mergeOverwrite (deepCopy .Values.settings) $managed | toJson -}}
{{- end -}}

{{- define "foretell.toml" -}}
# Generated by the chart. `foretell config dump --defaults` explains the keys.
{{ include "foretell.toml.table" (dict "path" "" "table" (include "foretell.config" . | fromJson)) | trim }}
{{- end -}}

{{/* A table: its own keys come first, because in TOML they end where the first nested table begins. Helm's toToml
     is not used because it writes every number with a decimal point, which is a different type. */}}
{{- define "foretell.toml.table" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "foretell.toml.key" $key }} = {{ include "foretell.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if kindIs "map" $value }}
{{- $inner := include "foretell.toml.key" $key -}}
{{- if $path }}{{ $inner = printf "%s.%s" $path $inner }}{{ end }}

[{{ $inner }}]
{{- include "foretell.toml.table" (dict "path" $inner "table" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "foretell.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- define "foretell.toml.value" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{ $items = append $items (include "foretell.toml.value" .) }}{{ end -}}
[{{ join ", " $items }}]
{{- else if kindIs "map" . -}}
{{- fail "settings: lists can contain only strings, numbers and booleans" -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* User names only: passwords are files. */}}
{{- define "foretell.env" -}}
{{- range $name := list "kafka" "cassandra" -}}
{{- with (index $.Values $name).credentialsSecret }}
- name: FORETELL__{{ upper $name }}__USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: username
{{- end -}}
{{- end -}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* Secrets of both backends: serve and migrate need the same ones. */}}
{{- define "foretell.secretMounts" -}}
{{- range $name := list "kafka" "cassandra" -}}
{{- $values := index $.Values $name -}}
{{- if $values.credentialsSecret }}
- name: {{ $name }}-credentials
  mountPath: /etc/foretell/{{ $name }}/credentials
  readOnly: true
{{- end -}}
{{- if $values.tls.secret }}
- name: {{ $name }}-tls
  mountPath: /etc/foretell/{{ $name }}/tls
  readOnly: true
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "foretell.secretVolumes" -}}
{{- range $name := list "kafka" "cassandra" -}}
{{- $values := index $.Values $name -}}
{{- with $values.credentialsSecret }}
- name: {{ $name }}-credentials
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: password, path: password}
{{- end -}}
{{- with $values.tls.secret }}
- name: {{ $name }}-tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - {key: ca.crt, path: ca.crt}
      {{- if $values.tls.clientCertificate }}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A security context from the values. OpenShift assigns user and group ids to each namespace and rejects others. */}}
{{- define "foretell.securityContext" -}}
{{- $adapt := .root.Values.global.compatibility.openshift.adaptSecurityContext -}}
{{- $isOpenShift := .root.Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
{{- $context := .context -}}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") $isOpenShift) -}}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" -}}
{{- end -}}
{{- with $context }}{{ toYaml . }}{{- end -}}
{{- end -}}
