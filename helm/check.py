"""Renders the chart and checks the result. Run by scripts/test-helm.

Each test checks one guarantee of the chart. REFUSED lists invalid values, each with a word of the error message.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import yaml

CHART = pathlib.Path(__file__).parent / "foretell"
KUBERNETES = os.environ["HELM_KUBE_VERSION"]
FULL = CHART / "examples" / "full.yaml"
EXAMPLES = {"default": [], "full": ["--values", str(FULL)]}

# Kinds of objects that Helm creates after the pre-install hooks, so hooks cannot use them.
LATER = {"ConfigMap", "Secret", "ServiceAccount"}


def helm(*arguments, chart=CHART):
    """The result of `helm template` with these additional arguments."""
    command = ["helm", "template", "risk", str(chart), "--namespace", "tests", "--kube-version", KUBERNETES]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


def render(*arguments, chart=CHART):
    """The objects that the chart renders."""
    done = helm(*arguments, chart=chart)
    if done.returncode != 0:
        raise AssertionError(f"helm template {arguments}: {done.stderr}")
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(objects, kind):
    return [item for item in objects if item["kind"] == kind]


def pods(objects):
    """Name and pod template of every workload; a bare pod is its own template."""
    workloads = [item for item in objects if item["kind"] in ("Deployment", "Job", "Pod")]
    return [(item["metadata"]["name"], item["spec"].get("template", item)) for item in workloads]


def values(**changes):
    """Arguments that set values of any JSON type."""
    return [word for name, value in changes.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]


def hooks(item):
    return item["metadata"].get("annotations", {}).get("helm.sh/hook", "")


def weight(item):
    return int(item["metadata"]["annotations"].get("helm.sh/hook-weight", "0"))


def references(spec):
    """Kind and name of every object that a pod needs before it can start."""
    found = {("ServiceAccount", spec.get("serviceAccountName", "default"))}
    for volume in spec.get("volumes", []):
        if "configMap" in volume:
            found.add(("ConfigMap", volume["configMap"]["name"]))
        if "secret" in volume:
            found.add(("Secret", volume["secret"]["secretName"]))
    for container in spec["containers"]:
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                found.add(("Secret", source["secretKeyRef"]["name"]))
            if "configMapKeyRef" in source:
                found.add(("ConfigMap", source["configMapKeyRef"]["name"]))
        for source in container.get("envFrom", []):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in source:
                    found.add((kind, source[field]["name"]))
    return found


def configuration(objects, suffix=""):
    """The text of foretell.toml."""
    name = f"risk-foretell{suffix}"
    return next(i for i in of_kind(objects, "ConfigMap") if i["metadata"]["name"] == name)["data"]["foretell.toml"]


class EveryExample(unittest.TestCase):
    """Guarantees for all values."""

    def each(self):
        for name, arguments in EXAMPLES.items():
            with self.subTest(values=name):
                yield render(*arguments)

    def test_pods_are_restricted(self):
        for objects in self.each():
            self.assertEqual(len(pods(objects)), 5, "three roles, the migration and the test")
            for name, template in pods(objects):
                spec = template["spec"]
                pod = spec["securityContext"]
                self.assertIs(pod["runAsNonRoot"], True, name)
                self.assertNotEqual(pod["runAsUser"], 0, name)
                self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"}, name)
                self.assertIs(spec["automountServiceAccountToken"], False, name)
                self.assertIs(spec["enableServiceLinks"], False, name)
                for refused in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertNotIn(refused, spec, name)
                for volume in spec.get("volumes", []):
                    read = {"configMap", "secret"} & set(volume) or volume["name"] == "enrich"
                    # The only files that a pod writes are copies of data files.
                    scratch = volume["name"] == "scratch" and name.endswith("-http") and "sizeLimit" in volume["emptyDir"]
                    self.assertTrue(read or scratch, f"{name} may write to {volume}")
                for container in spec["containers"]:
                    context = container["securityContext"]
                    self.assertIs(context["readOnlyRootFilesystem"], True, name)
                    self.assertIs(context["allowPrivilegeEscalation"], False, name)
                    self.assertIs(context["privileged"], False, name)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, name)
                    self.assertIn("memory", container["resources"]["limits"], name)
                    self.assertIn("cpu", container["resources"]["requests"], name)

    def test_hooks_use_no_objects_that_are_created_later(self):
        for objects in self.each():
            created = {(i["kind"], i["metadata"]["name"]): i for i in objects if i["kind"] in LATER}
            jobs = of_kind(objects, "Job")
            self.assertEqual(len(jobs), 1)
            for job in jobs:
                self.assertEqual(set(hooks(job).split(",")), {"pre-install", "pre-upgrade"})
                for reference in references(job["spec"]["template"]["spec"]) & set(created):
                    needed = created[reference]
                    self.assertEqual(hooks(needed), hooks(job), f"{reference} is not there yet when the job runs")
                    self.assertLess(weight(needed), weight(job), f"{reference} is not created before the job")

    def test_no_secret_is_created(self):
        for objects in self.each():
            self.assertEqual(of_kind(objects, "Secret"), [])
            self.assertNotIn("password =", configuration(objects))

    def test_roles_are_probed_and_drain(self):
        for objects in self.each():
            deployments = of_kind(objects, "Deployment")
            roles = {d["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] for d in deployments}
            self.assertEqual(roles, {"http", "views", "reminders"})
            for deployment in deployments:
                template = deployment["spec"]["template"]
                role = template["metadata"]["labels"]["app.kubernetes.io/component"]
                container = template["spec"]["containers"][0]
                self.assertEqual(container["args"][0], "serve")
                self.assertEqual(container["args"][container["args"].index("--roles") + 1], role)
                probes = {p: container[f"{p}Probe"]["httpGet"] for p in ("liveness", "readiness", "startup")}
                self.assertEqual(probes["liveness"], {"path": "/livez", "port": "ops"})
                self.assertEqual(probes["readiness"], {"path": "/readyz", "port": "ops"})
                self.assertEqual(probes["startup"], {"path": "/livez", "port": "ops"})
                ports = {p["name"]: p["containerPort"] for p in container["ports"]}
                self.assertEqual(set(ports), {"http", "ops"} if role == "http" else {"ops"})
                annotations = template["metadata"]["annotations"]
                self.assertEqual(annotations["prometheus.io/port"], str(ports["ops"]))
                self.assertEqual(annotations["prometheus.io/path"], "/metrics")
                pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                self.assertEqual(pause > 0, role == "http")
                self.assertGreater(template["spec"]["terminationGracePeriodSeconds"], pause + 10)

    def test_selectors_find_exactly_their_role(self):
        for objects in self.each():
            templates = [template["metadata"]["labels"] for _, template in pods(objects)]

            def found(selector):
                return [labels for labels in templates if selector.items() <= labels.items()]

            selecting = [i["spec"]["selector"]["matchLabels"] for i in of_kind(objects, "Deployment")]
            selecting += [i["spec"]["selector"]["matchLabels"] for i in of_kind(objects, "PodDisruptionBudget")]
            selecting += [i["spec"]["selector"] for i in of_kind(objects, "Service")]
            self.assertEqual(len(selecting), 7)
            for selector in selecting:
                self.assertEqual(len(found(selector)), 1, selector)

    def test_mounts_and_volumes_agree(self):
        for objects in self.each():
            for name, template in pods(objects):
                volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
                mounts = template["spec"]["containers"][0].get("volumeMounts", [])
                self.assertEqual({mount["name"] for mount in mounts}, volumes, name)
                self.assertTrue(all(mount.get("readOnly") for mount in mounts if mount["name"] != "scratch"), name)

    def test_only_pods_that_answer_requests_have_the_keys(self):
        for objects in self.each():
            for name, template in pods(of_kind(objects, "Deployment")):
                volumes = {volume["name"] for volume in template["spec"]["volumes"]}
                self.assertEqual("api-keys" in volumes, name.endswith("-http"), name)

    def test_a_client_can_be_kept_on_one_pod(self):
        for example, affinity in (("default", "None"), ("full", "ClientIP")):
            (service,) = of_kind(render(*EXAMPLES[example]), "Service")
            self.assertEqual(service["spec"]["sessionAffinity"], affinity)

    def test_no_service_exposes_the_operators_port(self):
        for objects in self.each():
            listen = tomllib.loads(configuration(objects))["ops"]["listen"]
            self.assertEqual(listen, "0.0.0.0:9090")
            for service in of_kind(objects, "Service"):
                self.assertEqual([port["targetPort"] for port in service["spec"]["ports"]], ["http"])

    def test_names_fit(self):
        long = ["--set", f"fullnameOverride={'n' * 63}"]
        for objects in [*self.each(), render(*long)]:
            for item in objects:
                self.assertLessEqual(len(item["metadata"]["name"]), 63)


SCHEDULING = {
    "nodeSelector": {"pool": "risk"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
}


class EveryPod(unittest.TestCase):
    """Guarantees for the pods of roles, migration and test."""

    def test_all_pods_have_the_same_scheduling(self):
        found = pods(render(*values(**SCHEDULING)))
        self.assertEqual(len(found), 5)
        for name, template in found:
            spec = template["spec"]
            for key in SCHEDULING.keys() - {"topologySpreadConstraints"}:
                self.assertEqual(spec.get(key), SCHEDULING[key], f"{name}: {key}")
            (constraint,) = spec["topologySpreadConstraints"]
            labels = constraint.pop("labelSelector")["matchLabels"]
            self.assertEqual(constraint, SCHEDULING["topologySpreadConstraints"][0], name)
            self.assertLessEqual(labels.items(), template["metadata"]["labels"].items(), name)
            self.assertIn("app.kubernetes.io/component", labels, name)

    def test_a_role_and_the_migration_can_override_the_scheduling(self):
        own = {**SCHEDULING, "priorityClassName": "own", "nodeSelector": {"pool": "own"}}
        own["topologySpreadConstraints"] = [{"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "own"}}}]
        changes = {f"{place}.{key}": value for place in ("roles.views", "migration") for key, value in own.items()}
        for name, template in pods(render(*values(**SCHEDULING, **changes))):
            spec = template["spec"]
            if name.endswith(("-views", "-migration")):
                self.assertEqual({key: spec[key] for key in own}, own, name)
            else:
                self.assertEqual(spec["priorityClassName"], "high", name)

    def test_all_pods_have_the_same_security_contexts(self):
        default = yaml.safe_load((CHART / "values.yaml").read_text())
        for changes in {}, {"podSecurityContext": {"runAsUser": 7}, "securityContext": {"privileged": False}}:
            expected = {**default, **changes}
            # Changes are merged into the defaults.
            expected = {k: {**default[k], **expected[k]} for k in ("podSecurityContext", "securityContext")}
            for name, template in pods(render(*values(**changes))):
                spec = template["spec"]
                self.assertEqual(spec["securityContext"], expected["podSecurityContext"], name)
                for container in spec["containers"]:
                    self.assertEqual(container["securityContext"], expected["securityContext"], name)

    def test_openshift_chooses_the_ids(self):
        ids = {"runAsUser", "runAsGroup", "fsGroup"}
        openshift = ["--api-versions", "security.openshift.io/v1"]
        for mode, arguments, adapted in (
            ("auto", [], False),
            ("auto", openshift, True),
            ("force", [], True),
            ("disabled", openshift, False),
        ):
            setting = ["--set", f"global.compatibility.openshift.adaptSecurityContext={mode}"]
            for name, template in pods(render(*setting, *arguments)):
                context = template["spec"]["securityContext"]
                self.assertEqual(ids & set(context), set() if adapted else ids, (name, mode))
                self.assertIs(context["runAsNonRoot"], True, (name, mode))

    def test_all_pods_have_the_global_registry_secrets_and_labels(self):
        shared = {
            "imageRegistry": "mirror.example.com:5000/cache",
            "imagePullSecrets": ["mirror", {"name": "other"}, "registry"],
            "commonLabels": {"team": "risk", "app.kubernetes.io/name": "stolen"},
        }
        for arguments, image, secrets in (
            ([], "mirror.example.com:5000/cache/foretell-rs/foretell:", ["mirror", "other", "registry"]),
            (EXAMPLES["full"], "mirror.example.com:5000/cache/risk/foretell@", ["registry", "mirror", "other"]),
            (["--set", "image.repository=risk/foretell"], "mirror.example.com:5000/cache/risk/foretell:", None),
        ):
            objects = render(*arguments, *values(**{"global": shared}))
            for name, template in pods(objects):
                self.assertTrue(template["spec"]["containers"][0]["image"].startswith(image), name)
                if secrets is not None:
                    names = [secret["name"] for secret in template["spec"]["imagePullSecrets"]]
                    self.assertEqual(names, secrets, name)
            for item in [*objects, *(template for _, template in pods(objects))]:
                labels = item["metadata"]["labels"]
                self.assertEqual((labels["team"], labels["app.kubernetes.io/name"]), ("risk", "foretell"))


class Subchart(unittest.TestCase):
    """Use as a dependency of a parent chart."""

    def parent(self, **dependency):
        """The directory of a parent chart with this dependency."""
        place = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
        chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
        chart["dependencies"] = [{"name": "foretell", "version": version, **dependency}]
        (place / "Chart.yaml").write_text(yaml.safe_dump(chart))
        shutil.copytree(CHART, place / "charts" / "foretell")
        return place

    def test_a_condition_switches_it_on_and_off(self):
        parent = self.parent(condition="foretell.enabled")
        for arguments, count in ([], 5), (["--set", "foretell.enabled=true"], 5), (["--set", "foretell.enabled=false"], 0):
            self.assertEqual(len(pods(render(*arguments, chart=parent))), count, arguments)

    def test_an_alias_has_its_own_condition(self):
        parent = self.parent(alias="scores", condition="scores.enabled")
        for switch, count in ("true", 5), ("false", 0):
            self.assertEqual(len(pods(render("--set", f"scores.enabled={switch}", chart=parent))), count)

    def test_globals_of_the_parent_are_used_and_other_globals_ignored(self):
        shared = {"imageRegistry": "mirror.example.com", "storageClass": "fast", "compatibility": {"other": True}}
        for _, template in pods(render(*values(**{"global": shared}), chart=self.parent())):
            spec = template["spec"]
            self.assertTrue(spec["containers"][0]["image"].startswith("mirror.example.com/foretell-rs/foretell:"))
            self.assertEqual(spec["securityContext"]["runAsUser"], 65532, "defaults of globals are there too")


class Configuration(unittest.TestCase):
    """The configuration file generated from the values."""

    def test_the_full_example_is_complete(self):
        text = configuration(render(*EXAMPLES["full"]))
        self.assertIn('log = "kafka://kafka-0.kafka:9093,kafka-1.kafka:9093,kafka-2.kafka:9093"\n', text)
        self.assertIn("drain_ms = 15000\n", text)
        read = tomllib.loads(text)
        nodes = "cassandra-0.cassandra:9042,cassandra-1.cassandra:9042,cassandra-2.cassandra:9042"
        self.assertEqual(read["store"], f"cassandra://{nodes}/foretell")
        self.assertEqual(read["http"], {"listen": "0.0.0.0:8080", "api_keys_file": "/etc/foretell/api-keys/api-keys.toml"})
        self.assertEqual(
            read["kafka"],
            {
                "security_protocol": "sasl_ssl",
                "sasl_mechanism": "SCRAM-SHA-512",
                "password_file": "/etc/foretell/kafka/credentials/password",
                "ca_file": "/etc/foretell/kafka/tls/ca.crt",
                "certificate_file": "/etc/foretell/kafka/tls/tls.crt",
                "key_file": "/etc/foretell/kafka/tls/tls.key",
                "drain_ms": 15000,
                "properties": {"client.rack": "zone-a"},
            },
        )
        self.assertEqual(
            read["cassandra"],
            {
                "replication_factor": 3,
                "datacenter": "dc1",
                "password_file": "/etc/foretell/cassandra/credentials/password",
                "ca_file": "/etc/foretell/cassandra/tls/ca.crt",
            },
        )
        self.assertEqual(
            read["topics"],
            {
                "prefix": "foretell.",
                "partitions": 24,
                "replication_factor": 3,
                "min_insync_replicas": 2,
                "decision_retention_days": 90,
                "dead_letter_retention_days": 90,
            },
        )
        self.assertEqual(read["telemetry"]["log_format"], "json")
        place = "/var/lib/foretell/enrich"
        self.assertEqual(
            read["enrich"],
            {
                "geo_asn": f"{place}/asn.mmdb",
                "geo_city": f"{place}/city.mmdb",
                "deny_lists": [f"{place}/firehol_level2.netset"],
                "allow_lists": [f"{place}/offices.netset"],
            },
        )

    def test_only_pods_that_read_address_files_mount_them(self):
        for arguments, there in ((EXAMPLES["default"], set()), (EXAMPLES["full"], {"enrich", "scratch"})):
            for name, template in pods(of_kind(render(*arguments), "Deployment")):
                volumes = {volume["name"] for volume in template["spec"]["volumes"]} & {"enrich", "scratch"}
                self.assertEqual(volumes, there if name.endswith("-http") else set(), name)

    def test_keys_are_those_of_the_default_settings(self):
        defaults = (CHART.parents[1] / "src" / "config" / "defaults.toml").read_text()
        known, section = set(), ""
        for line in defaults.splitlines():
            if header := re.match(r"\[([a-z_.]+)\]$", line):
                section = header[1]
            elif key := re.match(r"(?:# )?([a-z_0-9]+) = ", line):
                known.add((section, key[1]))
        for arguments in EXAMPLES.values():
            read = tomllib.loads(configuration(render(*arguments)))
            self.assertLessEqual({"log", "store", "topics", "http", "kafka", "cassandra"}, set(read))
            for section, values in read.items():
                for key in values if isinstance(values, dict) else []:
                    if (section, key) != ("kafka", "properties"):
                        self.assertIn((section, key), known)

    def test_topics_have_the_default_settings(self):
        defaults = tomllib.loads((CHART.parents[1] / "src" / "config" / "defaults.toml").read_text())
        for key, value in tomllib.loads(configuration(render()))["topics"].items():
            self.assertEqual(value, defaults["topics"][key], key)

    def test_the_migration_reads_the_same(self):
        for arguments in EXAMPLES.values():
            objects = render(*arguments)
            self.assertEqual(configuration(objects), configuration(objects, "-migration"))

    def test_values_keep_their_types(self):
        settings = {"a": {"whole": 3, "half": 0.5, "on": True, "text": 'say "so" <&>', "list": [1, "b"]}}
        text = configuration(render("--set-json", f"settings={json.dumps(settings)}"))
        for line in ("whole = 3\n", "half = 0.5\n", "on = true\n", 'list = [1, "b"]\n'):
            self.assertIn(line, text)
        self.assertEqual(tomllib.loads(text)["a"], settings["a"])

    def test_values_override_settings(self):
        text = configuration(render("--set-json", 'settings={"http": {"listen": "127.0.0.1:1", "body_bytes_max": 1}}'))
        self.assertIn('listen = "0.0.0.0:8080"\n', text)
        self.assertIn("body_bytes_max = 1\n", text)

    def test_a_change_rolls_the_pods(self):
        def sums(*arguments):
            deployments = of_kind(render(*arguments), "Deployment")
            return {d["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for d in deployments}

        self.assertEqual(len(sums()), 1)
        self.assertNotEqual(sums(), sums("--set", "settings.pipeline.batch_age_ms_max=20"))

    def test_user_names_come_from_the_secrets(self):
        objects = render(*EXAMPLES["full"])
        for name, template in pods(of_kind(objects, "Deployment") + of_kind(objects, "Job")):
            variables = {v["name"]: v for v in template["spec"]["containers"][0]["env"]}
            for backend in ("kafka", "cassandra"):
                source = variables[f"FORETELL__{backend.upper()}__USERNAME"]["valueFrom"]["secretKeyRef"]
                self.assertEqual(source, {"name": f"foretell-{backend}", "key": "username"}, name)


class Choices(unittest.TestCase):
    """Effects of single values."""

    def test_a_role_can_be_disabled(self):
        objects = render("--set", "roles.http.enabled=false")
        names = {d["metadata"]["name"] for d in of_kind(objects, "Deployment")}
        self.assertEqual(names, {"risk-foretell-views", "risk-foretell-reminders"})
        self.assertEqual(of_kind(objects, "Service"), [])
        self.assertEqual(of_kind(objects, "Pod"), [], "without a Service there is nothing to test")

    def test_the_helm_test_queries_the_service(self):
        for arguments in EXAMPLES.values():
            objects = render(*arguments)
            (service,), (pod,) = of_kind(objects, "Service"), of_kind(objects, "Pod")
            port = service["spec"]["ports"][0]["port"]
            self.assertEqual(hooks(pod), "test")
            self.assertEqual(
                pod["spec"]["containers"][0]["args"],
                ["health", f"http://{service['metadata']['name']}.tests.svc:{port}"],
            )

    def test_single_replicas_can_be_drained(self):
        objects = render("--set", "roles.views.replicas=1")
        names = {b["metadata"]["name"] for b in of_kind(objects, "PodDisruptionBudget")}
        self.assertEqual(names, {"risk-foretell-http", "risk-foretell-reminders"})

    def test_insecure_is_a_flag_of_serve(self):
        for arguments, expected in ([], False), (["--set", "http.insecure=true,http.apiKeysSecret="], True):
            for deployment in of_kind(render(*arguments), "Deployment"):
                container = deployment["spec"]["template"]["spec"]["containers"][0]
                self.assertEqual("--insecure" in container["args"], expected)

    def test_the_roles_that_fold_rebuild_views(self):
        for arguments, rebuilding in ([], {"views", "reminders"}), (["--set", "views.autoRebuild=false"], set()):
            for name, template in pods(of_kind(render(*arguments), "Deployment")):
                found = "--auto-rebuild" in template["spec"]["containers"][0]["args"]
                self.assertEqual(found, name.removeprefix("risk-foretell-") in rebuilding, name)

    def test_further_arguments_come_last(self):
        further = ["--geo-asn", "/a b.mmdb"]
        for name, template in pods(of_kind(render(*values(extraArgs=further)), "Deployment")):
            self.assertEqual(template["spec"]["containers"][0]["args"][-2:], further, name)

    def test_a_cleared_tag_is_the_version_of_the_chart(self):
        for _, template in pods(render("--set", "image.tag=null,image.digest=null")):
            self.assertTrue(template["spec"]["containers"][0]["image"].endswith("/foretell:0.1.0"))

    def test_the_image_is_pinned_by_digest_first(self):
        for arguments, suffix in (([], ":0.1.0"), (["--set", "image.tag=v9"], ":v9"), (EXAMPLES["full"], "@sha256:")):
            for _, template in pods(render(*arguments)):
                self.assertIn(suffix, template["spec"]["containers"][0]["image"])

    def test_optional_objects_exist_only_if_enabled(self):
        self.assertEqual(of_kind(render(), "NetworkPolicy"), [])
        (policy,) = of_kind(render(*EXAMPLES["full"]), "NetworkPolicy")
        callers, operators = policy["spec"]["ingress"]
        self.assertEqual([next(iter(peer)) for peer in callers["from"]], ["namespaceSelector", "podSelector"])
        self.assertEqual([next(iter(peer)) for peer in operators["from"]], ["namespaceSelector"])
        self.assertEqual([rule["ports"][0]["port"] for rule in (callers, operators)], [8080, 9090])
        (policy,) = of_kind(render("--set", "networkPolicy.enabled=true"), "NetworkPolicy")
        for rule in policy["spec"]["ingress"]:
            self.assertNotIn("from", rule, "without peers every source is allowed")
        for switch, kind in (
            ("migration.enabled", "Job"),
            ("serviceAccount.create", "ServiceAccount"),
            ("podDisruptionBudget.enabled", "PodDisruptionBudget"),
        ):
            self.assertNotEqual(of_kind(render(), kind), [])
            self.assertEqual(of_kind(render("--set", f"{switch}=false"), kind), [], switch)


REFUSED = [
    # values, a word of the error message
    ("replicaCount=2", "replicaCount"),
    ("enabled=false", "condition"),
    ("enabled=maybe", "enabled"),
    ("global.imageRegistry=https://mirror", "imageRegistry"),
    ("global.imagePullSecrets[0]=Not_A_Name", "imagePullSecrets"),
    ("global.commonLabels.tier=1", "commonLabels"),
    ("global.compatibility.openshift.adaptSecurityContext=always", "adaptSecurityContext"),
    ("podSecurityContext=restricted", "podSecurityContext"),
    ("securityContext=restricted", "securityContext"),
    ("nodeSelector=here", "nodeSelector"),
    ("tolerations=all", "tolerations"),
    ("migration.priorityClassName=Not_A_Name", "priorityClassName"),
    ("roles.http.topologySpreadConstraints=zone", "topologySpreadConstraints"),
    ("views.autoRebuild=yes", "autoRebuild"),
    ("views.rebuild=true", "rebuild"),
    ("extraArgs=--insecure", "extraArgs"),
    ("roles.http.replica=2", "replica"),
    ("roles.http.replicas=-1", "replicas"),
    ("roles.http.replicas=two", "replicas"),
    ("roles.scorer.enabled=true", "scorer"),
    ("roles.views.resources.request.cpu=1", "request"),
    ("image.digest=latest", "digest"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("http.port=80", "port"),
    ("ops.port=80", "port"),
    ("ops.port=8080", "ops.port"),
    ("ops.listen=0.0.0.0:9090", "listen"),
    ("http.apiKeysSecret=Not_A_Name", "apiKeysSecret"),
    ("http.apiKeysSecret=", "http.apiKeysSecret"),
    ("http.insecure=true", "http.insecure"),
    ("http.service.type=ExternalName", "type"),
    ("http.service.sessionAffinity=Cookie", "sessionAffinity"),
    ("kafka.brokers[0]=kafka", "brokers"),
    ("kafka.brokers=", "brokers"),
    ("kafka.password=secret", "password"),
    ("kafka.securityProtocol=tls", "securityProtocol"),
    ("kafka.securityProtocol=sasl_ssl", "kafka.saslMechanism"),
    ("kafka.credentialsSecret=a", "sasl_"),
    ("kafka.tls.secret=a", "kafka.tls.secret"),
    ("cassandra.tls.clientCertificate=true", "cassandra.tls.secret"),
    ("cassandra.keyspace=Foretell", "keyspace"),
    ("cassandra.nodes[0]=cassandra", "nodes"),
    ("topics.partitions=0", "partitions"),
    ("settings.store=disk:./data", "store"),
    ("settings.kafka.password=secret", "settings"),
    ("settings.cassandra.password=secret", "settings"),
    ("enrich.geoAsn=asn.mmdb", "enrich.volume"),
    ("enrich.volume.emptyDir.medium=Memory", "enrich.volume"),
    ("enrich.geoCity=/etc/passwd", "geoCity"),
    ("enrich.scratch=lots", "scratch"),
    ("terminationGracePeriodSeconds=20", "terminationGracePeriodSeconds"),
    ("settings.kafka.drain_ms=60000", "terminationGracePeriodSeconds"),
    ("settings.http.drain_ms=35000", "terminationGracePeriodSeconds"),
    ("settings.decisions.drain_ms=30000", "terminationGracePeriodSeconds"),
    ("podDisruptionBudget.maxUnavailable=0", "maxUnavailable"),
    ("networkPolicy.enabled=maybe", "enabled"),
]


class Refusals(unittest.TestCase):
    """Invalid values are reported by name, before anything is installed."""

    def test_invalid_values_are_rejected_by_name(self):
        for values, word in REFUSED:
            with self.subTest(values=values):
                done = helm("--set", values)
                self.assertNotEqual(done.returncode, 0, "it was rendered")
                self.assertIn(word, done.stderr)

    def test_values_and_schema_have_the_same_keys(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        schema = json.loads((CHART / "values.schema.json").read_text())

        def compare(value, part, path):
            if "$ref" in part:
                part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
            if not isinstance(value, dict) or part.get("additionalProperties") is not False or "required" not in part:
                return
            self.assertEqual(set(value), set(part["properties"]), path or "the top")
            for key, inner in value.items():
                compare(inner, part["properties"][key], f"{path}.{key}")

        compare(values, schema, "")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "--verbose"])
